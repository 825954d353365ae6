"""Real programs around the server: a proxy in front of it, and the checker of figures."""

import asyncio
import json
import shutil
import subprocess

import aiohttp
import numpy as np
import pytest

from tests.support.live_server import Stream, free_port, live_server, noise, run, scores_alone

NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location /sounds/ {{
      proxy_pass http://127.0.0.1:{target}/;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
    }}
  }}
}}
"""


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@run
async def test_promtool_accepts_the_figures():
    async with live_server(rules={"rules": {"default": {"on": 0.05}}}) as (client, _):
        stream = await Stream.open(client)
        await stream.sound(noise(1))
        await stream.finish()
        async with client.get("/metrics") as response:
            text = await response.read()
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, b"")


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
@run
async def test_a_proxy_in_front(tmp_path):
    port = free_port()
    async with live_server(rules={"rules": {"default": {"on": 0.05}}}) as (client, _):
        config = tmp_path / "nginx.conf"
        config.write_text(NGINX.format(folder=tmp_path, port=port, target=client.port))
        nginx = subprocess.Popen(["nginx", "-c", config, "-p", tmp_path])
        try:
            async with aiohttp.ClientSession() as http:
                await behind(Behind(http, f"http://127.0.0.1:{port}/sounds"))
        finally:
            nginx.terminate()
            nginx.wait()


class Behind:
    """A client that reaches the server through the proxy."""

    def __init__(self, http, root):
        self._http, self._root = http, root

    def ws_connect(self, path):
        return self._http.ws_connect(self._root + path)

    def get(self, path, **options):
        return self._http.get(self._root + path, **options)


async def behind(client):
    for _ in range(100):
        try:
            async with client.get("/healthz") as response:
                assert response.status == 200
            break
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(0.05)
    samples = noise(2)
    async with client.get("/v1/events") as events:
        stream = await Stream.open(client)
        await stream.sound(samples)
        await stream.send(type="mark", id="")
        await stream.read_until("marked")
        # The stream goes on, so the proxy has passed this on at once.
        while not (line := await events.content.readline()).startswith(b"data: "):
            pass
        assert json.loads(line[6:]) == {"stream": stream.started["session"]} | stream.of("event")[0]
        np.testing.assert_allclose(await stream.finish(), scores_alone(samples), atol=1e-6)
    origin = {"Origin": "https://evil.example"}
    async with client.get("/v1/model", headers=origin) as response:
        assert response.status == 403
