"""Prints every message that the gateway of ``make run`` publishes: ``.venv/bin/python docs/subscribe.py``."""

from pathlib import Path

import paho.mqtt.client as mqtt


def on_connect(client, userdata, flags, reason, properties):
    print("connected:", reason)
    client.subscribe("flespi/message/gw/#", qos=1)


def on_message(client, userdata, message):
    print(message.topic, message.payload.decode())


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
client.username_pw_set(Path("var/token").read_text().strip())
client.on_connect, client.on_message = on_connect, on_message
try:
    client.connect("127.0.0.1", 1883)
    client.loop_forever()
except OSError as error:
    raise SystemExit(f"is the gateway running? {error}") from None
except KeyboardInterrupt:
    pass
