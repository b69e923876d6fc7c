"""Message plugins: what a message of a device goes through before it is registered.

To read: ``base`` (what a plugin is), ``types`` (where types are found), ``chain`` (the plugins of one device, in
order), ``chains`` (the chains of all devices), ``lane`` (those that wait for others, beside the registrar). The types
themselves are the files in ``plugins/`` and in the operator's folders; ``docs/plugins.md`` shows how one is written.
"""

from gateway.plugin.base import Config, Context, DropMessage, Message, Plugin, PluginError, RemotePlugin

__all__ = ["Config", "Context", "DropMessage", "Message", "Plugin", "PluginError", "RemotePlugin"]
