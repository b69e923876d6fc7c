"""The gateway as a twistd application: ``twistd -y twistd.tac``, with ``$GATEWAY_CONF`` or conf/gateway.toml."""

from gateway import aio

aio.install_reactor()

from gateway.service import make_application  # noqa: E402

application = make_application()
