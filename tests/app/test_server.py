"""A running server, asked by programs: the HTTP API, many at once, and visitors who mean harm."""

import http.client
import json
import re
import struct
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import Status
from PIL import Image
from serving import Server, make_place, serve

from spectral_fusion.picture import read_parameters

PROMPT = "a <rex> dog and a <tom> cat on grass"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = make_place(tmp_path_factory.mktemp("server") / "place")  # what climbs out of it shows beside it
    (place / "secret.txt").write_text("1234")
    (place / "out").mkdir()
    (place / "out" / "link").symlink_to(place)
    with serve(place) as server:
        yield server


@pytest.fixture(scope="module")
def user(server: Server) -> Client:
    """A visitor of the module's own; the base is ready."""
    user = client(server)
    wait_until_ready(user)
    return user


def client(server: Server, **options: object) -> Client:
    return Client(server.url, verbose=False, **options)


def wait_until_ready(client: Client) -> None:
    for _ in range(600):
        state = client.predict(api_name="/state")
        if state["kind"] != "loading":
            assert state["kind"] == "ready", state
            return
        time.sleep(0.1)
    raise AssertionError("the base does not load")


def wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not done():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.05)


def test_the_api_describes_itself(user: Client) -> None:
    described = user.view_api(return_format="dict")["named_endpoints"]
    assert {"/generate", "/concepts", "/state", "/load_base", "/history", "/cancel"} <= described.keys()
    parameters = [parameter["parameter_name"] for parameter in described["/generate"]["parameters"]]
    assert parameters[:3] == ["prompt", "weights", "regions"]
    assert "PNG" in described["/generate"]["description"]


def test_every_endpoint_has_an_example(user: Client) -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    examples = set(re.findall(r"""["`](/\w+)["`]""", text))
    assert examples == user.view_api(return_format="dict")["named_endpoints"].keys()


def test_pictures_through_the_api(user: Client) -> None:
    assert [concept["trigger"] for concept in user.predict(api_name="/concepts")] == ["<rex>", "<tom>"]
    regions = [{"prompt": "a <rex> dog", "box": [0, 0, 0.5, 1]}]
    files = user.predict(
        prompt=PROMPT, weights={"rex": 0.5}, regions=regions, steps=2, seed=3, num_images=2, api_name="/generate"
    )
    parameters = [read_parameters(file) for file in files]
    assert [parameter.settings["Seed"] for parameter in parameters] == ["3", "4"]
    assert parameters[0].weights == {"rex": 0.5, "tom": 1.0}
    assert "a <rex> dog" in parameters[0].settings["Regions"]
    newest = user.predict(count=2, api_name="/history")
    assert [Image.open(file).tobytes() for file in newest] == [Image.open(file).tobytes() for file in files[::-1]]


def test_the_example_of_the_readme(server: Server, user: Client, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    [example] = [text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "gradio_client" in text]
    example = example.replace("http://127.0.0.1:7860/", server.url).replace('("http', '(verbose=False, src="http')
    exec(compile(example, "README.md", "exec"), {})
    parameters = read_parameters(capsys.readouterr().out.split()[-1])
    assert parameters.weights == {"rex": 1.0, "tom": 0.8}


@pytest.mark.slow
def test_twenty_pictures_asked_for_at_once_come_in_order_and_memory_stays_level(server: Server, user: Client) -> None:
    clients = [user, *(client(server) for _ in range(4))]
    for _ in range(2):  # the first pictures fill caches
        user.predict(prompt=PROMPT, steps=2, num_images=4, api_name="/generate")
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    told = len(server.pictures)
    jobs = []
    for number in range(20):
        jobs.append(clients[number % 5].submit(prompt=PROMPT, steps=2, seed=number, api_name="/generate"))
        while jobs[-1].status().code in (Status.STARTING, Status.JOINING_QUEUE):
            time.sleep(0.001)
    files = [job.result(timeout=120) for job in jobs]
    assert [len(made) for made in files] == [1] * 20
    assert [read_parameters(made[0]).settings["Seed"] for made in files] == [str(number) for number in range(20)]
    made = [int(file.stem.rsplit("-", 1)[1]) for file in server.pictures[told:]]
    assert made == list(range(20)), "first come, first served"
    assert process.memory_info().rss == pytest.approx(before, rel=0.05)


def test_cancel_stops_own_work_alone(server: Server, user: Client) -> None:
    ann, bob = user, client(server)
    long = ann.submit(prompt=PROMPT, steps=150, num_images=30, api_name="/generate")
    other = bob.submit(prompt=PROMPT, steps=2, api_name="/generate")
    while not ann.predict(api_name="/cancel"):
        time.sleep(0.05)
    assert len(long.result(timeout=60)) < 30
    assert len(other.result(timeout=60)) == 1


def post(server: Server, prompt: str, steps: int = 25) -> str:
    """Ask for a picture as a program of its own that never listens to the answer; the id of what it asked."""
    url = f"{server.url}gradio_api/call/generate"
    form = ["DPM++ 2M", steps, 5.0, None, None, None, 1, None, None, None, None, 1.0, 0.4, 0.0, 0.0]
    data = [prompt, None, None, "", *form]
    request = urllib.request.Request(url, json.dumps({"data": data}).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["event_id"]


def listen(server: Server, event: str) -> http.client.HTTPConnection:
    """Hold the line for the answer of an event, and read nothing of it yet."""
    host = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(host.hostname), host.port, timeout=60)
    connection.request("GET", f"/gradio_api/call/generate/{event}")
    return connection


@pytest.mark.slow
def test_forty_who_wait_stop_no_listener_and_leave_when_they_are_gone(server: Server, user: Client) -> None:
    before = len(server.pictures)
    long = user.submit(prompt=PROMPT, steps=150, num_images=36, api_name="/generate")
    wait_until(lambda: len(server.pictures) > before)  # it runs: those who come now wait
    waiting = [listen(server, post(server, "a dog")) for _ in range(42)]
    other = client(server)
    assert len(other.predict(api_name="/concepts")) == 2
    with pytest.raises(AppError, match="40 requests are waiting"):
        other.predict(prompt="a dog", steps=1, api_name="/generate")
    assert user.predict(api_name="/cancel") == 1
    assert len(long.result(timeout=120)) < 36
    for connection in waiting:
        connection.close()
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            assert len(other.predict(prompt="a dog", steps=1, api_name="/generate")) == 1
            break
        except AppError:
            time.sleep(1)
    else:
        raise AssertionError("those who left still wait")


def test_an_answer_that_is_listened_to_is_made_however_long_it_waits(server: Server, user: Client) -> None:
    event = post(server, "a dog", 1)
    with urllib.request.urlopen(f"{server.url}gradio_api/call/generate/{event}", timeout=60) as answer:
        assert "event: complete" in answer.read().decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Length": str(10**9)}, 413),
        ({}, 200),
    ],
)
def test_other_sites_and_endless_bodies_are_refused(server: Server, headers: dict[str, str], status: int) -> None:
    host = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(host.hostname), host.port, timeout=60)
    body = json.dumps({"data": ["a dog"]}).encode()
    connection.putrequest("POST", "/gradio_api/call/cancel", skip_host="Host" in headers)
    for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(body)
    assert connection.getresponse().status == status
    connection.close()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "a <rxe> dog"}, "<rxe>"),
        ({"prompt": "x" * 3000}, "3000 characters"),
        ({"prompt": "a dog", "weights": {"../../secret": 1}}, "no concept"),
        ({"prompt": "a dog", "weights": {"/etc/passwd": 1}}, "no concept"),
        ({"prompt": "a dog <lora:../tom:1>"}, "cannot name a concept"),
        ({"prompt": "a dog", "steps": 500}, "steps is 500; give a whole number from 1 to 150"),
        ({"prompt": "a dog", "width": 65536, "height": 65536}, "65536"),
        ({"prompt": "a dog", "num_images": 1000}, "num_images is 1000"),
        ({"prompt": "a dog", "sampler": "Oiler"}, "Euler"),
        ({"prompt": "a dog", "guidance_scale": -1}, "guidance_scale"),
        ({"prompt": "a dog", "regions": [{"prompt": "a cat", "box": [0, 0, 2, 1]}]}, "outside the picture"),
        ({"prompt": "a dog", "regions": [{"box": "x"}]}, "wrong kind"),
        ({"prompt": "a dog", "weights": {"rex": "heavy"}}, "wrong kind"),
        ({"prompt": "a dog", "steps": "many"}, "wrong kind"),
    ],
)
def test_bad_requests_are_answered_in_one_readable_line(server: Server, user: Client, asked: dict, words: str) -> None:
    pictures = server.pictures
    with pytest.raises(AppError) as caught:
        user.predict(**{"steps": 2} | asked, api_name="/generate")
    assert words in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert server.pictures == pictures


@pytest.mark.parametrize("base", ["/etc", "../", "out/link/base", "secret.txt", "/", "model.ckpt", "no/such", ""])
def test_only_bases_in_allowed_folders_are_loaded_and_the_loaded_one_stays(user: Client, base: str) -> None:
    before = user.predict(api_name="/state")
    with pytest.raises(AppError):
        user.predict(base=base, api_name="/load_base")
    assert user.predict(api_name="/state") == before
    assert len(user.predict(prompt="a dog", steps=1, api_name="/generate")) == 1


@pytest.mark.parametrize(
    "path",
    [
        "secret.txt",
        "server.log",
        "base/model_index.json",
        "concepts/rex/concept.safetensors",
        "out/link/secret.txt",
        "out/pictures/../../secret.txt",
        "out/pictures/%2e%2e/%2e%2e/secret.txt",
        "/etc/passwd",
        "file:///etc/passwd",
    ],
)
def test_files_outside_the_pictures_are_not_served(server: Server, path: str) -> None:
    name = path if path.startswith(("/", "file:")) else str(server.place / path)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.url}gradio_api/file={name}")
    assert caught.value.code in (403, 404)


@pytest.mark.parametrize(
    "path",
    [
        "shown/pictures/../../concepts/rex/concept.safetensors",
        "shown/pictures/%2e%2e/%2e%2e/concepts/rex/concept.safetensors",
        "shown/pictures//etc/passwd",
        "shown/trainings/x/training.json",
        "shown/pictures/none.png",
        "shown/",
    ],
)
def test_addresses_of_pictures_lead_to_nothing_else(server: Server, path: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request("GET", f"/{path}")  # as it is: urllib would shorten it
    assert connection.getresponse().status in (403, 404)


def test_an_uploaded_name_never_becomes_a_path(server: Server) -> None:
    answer = upload(server, "../../../../evil.png", b"1")
    assert answer[0] == 200
    stored = Path(json.loads(answer[1])[0])
    assert stored.is_relative_to(server.place / "cache")
    assert not list(server.place.parent.glob("evil.png"))


@pytest.mark.slow
def test_an_upload_that_is_too_large_is_refused(server: Server, user: Client) -> None:
    assert upload(server, "large.png", b"0" * (129 * 2**20))[0] == 413
    assert len(user.predict(api_name="/concepts")) == 2


def test_settings_are_read_from_pictures_alone(server: Server, user: Client, tmp_path: Path) -> None:
    bomb, text, plain = tmp_path / "bomb.png", tmp_path / "text.png", tmp_path / "plain.png"
    bomb.write_bytes(png_header(60_000, 60_000))
    text.write_text("<script>alert(1)</script>")
    Image.new("RGB", (8, 8)).save(plain)
    for file, words in ((bomb, "not a readable picture"), (text, "not a readable"), (plain, "does not say")):
        with pytest.raises(AppError) as caught:
            user.predict(handle_file(file), api_name="/read_settings")
        assert words in str(caught.value)
        assert str(server.place) not in str(caught.value)
    made = user.predict(prompt="a dog", steps=1, seed=11, api_name="/generate")
    assert user.predict(handle_file(made[0]), api_name="/read_settings")["seed"] == 11


def test_a_file_of_the_server_is_no_upload(server: Server, user: Client) -> None:
    secret = {"path": str(server.place / "secret.txt"), "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AppError):
        user.predict(secret, api_name="/read_settings")


def test_the_log_has_no_bug_of_ours(server: Server) -> None:
    assert "a listener of the page failed" not in server.log


@pytest.mark.slow
def test_a_login_is_asked_for_everything(tmp_path: Path) -> None:
    with serve(make_place(tmp_path), "--auth", "ann:secret", "--host", "0.0.0.0") as server:
        for path in ("config", "gradio_api/info", f"gradio_api/file={server.place}/out", "gradio_api/upload"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(server.url + path)
            assert caught.value.code in (401, 405)
        with pytest.raises((ValueError, AppError)):
            client(server, auth=("ann", "wrong"))
        wait_until_ready(client(server, auth=("ann", "secret")))


def upload(server: Server, name: str, data: bytes) -> tuple[int, bytes]:
    mark = "----------spectral"
    head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = head + data + f"\r\n--{mark}--\r\n".encode()
    request = urllib.request.Request(
        f"{server.url}gradio_api/upload", body, {"Content-Type": f"multipart/form-data; boundary={mark}"}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
