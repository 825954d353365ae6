"""Where events go beside clients and the page: a file, a webhook, an MQTT broker."""
