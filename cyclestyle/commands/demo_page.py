"""The page of the demo, built with Gradio."""

import hmac
import os
from pathlib import Path
from typing import Any

from cyclestyle.commands.demo_studio import Limits, Studio
from cyclestyle.data.sample import sample_image
from cyclestyle.errors import CycleStyleError, optional
from cyclestyle.images import has_video

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
gr = optional("gradio", "cyclestyle demo", "demo")

KEPT_SECONDS = 300
"""Seconds after which uploads and results are removed. They are removed at once when the demo ends."""
NAMES = {"AtoB": "A → B", "BtoA": "B → A"}
EXAMPLES = 4
SYSTEM_FONTS = ["system-ui", "sans-serif"]
# The browser of a visitor asks nobody but this server, whatever the page links to.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: wss: data: blob:"
CSS = """
footer { display: none !important }
.gradio-container { max-width: 1100px !important; margin: 0 auto }
"""


def _upload(**options: Any) -> Any:
    """An image whose file reaches the studio as it was sent, with its metadata.

    The method is replaced in the component itself: Gradio writes a file beside the module of every subclass.
    """
    image = gr.Image(type="filepath", **options)
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def build_page(studio: Studio, *, waiting: int) -> Any:
    """Return the page.

    Args:
        studio: what does the work.
        waiting: requests that may wait; more are refused.
    """
    first = next(iter(studio.translators))
    with gr.Blocks(title="cyclestyle", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as page:
        gr.Markdown(f"# cyclestyle\n{_introduction(studio.limits)}")
        with gr.Row():
            with gr.Column(min_width=300):
                image = _upload(label="Image", sources=["upload", "clipboard", "webcam"], elem_id="upload")
                checkpoint = gr.Dropdown(
                    list(studio.translators), value=first, label="Checkpoint", visible=len(studio.translators) > 1
                )
                direction, style, strength = _choices(studio, first)
                button = gr.Button("Translate", variant="primary", elem_id="translate")
            with gr.Column(min_width=300):
                slider = gr.ImageSlider(
                    label="Before and after",
                    type="filepath",
                    format="png",
                    buttons=["fullscreen"],  # what is shown may be smaller than the result
                    elem_id="result",
                    interactive=False,
                )
                download = gr.DownloadButton("Download in full size", interactive=False, elem_id="download")
        gr.Examples(_examples(studio.folder), inputs=[image], label="Examples", elem_id="examples")
        checkpoint.change(
            lambda name: _choices(studio, name, update=True),
            checkpoint,
            [direction, style, strength],
            api_visibility="private",
        )

        def translate(*given: Any) -> tuple[Any, Any]:
            try:
                result = studio.translate(*given)
            except CycleStyleError as error:
                raise gr.Error(str(error), print_exception=False, title="Not translated") from error
            except (MemoryError, RuntimeError, ValueError) as error:
                raise gr.Error("The image cannot be translated.", print_exception=False) from error
            return (result.before, result.after), gr.DownloadButton(value=str(result.file), interactive=True)

        button.click(
            translate,
            [checkpoint, image, direction, style, strength],
            [slider, download],
            concurrency_limit=1,
            concurrency_id="translate",
            api_visibility="private",
        )
        if has_video():
            _add_video(studio, checkpoint, direction)
    page.queue(max_size=waiting, default_concurrency_limit=1, api_open=False)
    return page


def _add_video(studio: Studio, checkpoint: Any, direction: Any) -> None:
    def translate(name: str, video: str | None, way: str) -> str:
        try:
            return str(studio.translate_video(name, video, way))
        except CycleStyleError as error:
            raise gr.Error(str(error), print_exception=False, title="Not translated") from error

    with gr.Accordion("Video", open=False), gr.Row():
        with gr.Column(min_width=300):
            video = gr.Video(label="Video", sources=["upload"], elem_id="video")
            button = gr.Button("Translate the video")
        result = gr.Video(label="Translation", interactive=False)
    button.click(
        translate,
        [checkpoint, video, direction],
        result,
        concurrency_limit=1,
        concurrency_id="translate",
        api_visibility="private",
    )


def _choices(studio: Studio, name: str, *, update: bool = False) -> tuple[Any, Any, Any]:
    """What a visitor may choose for a checkpoint: direction, style image and strength."""
    task, ways = studio.task(name), studio.directions(name)
    # Gradio takes components both as new ones and as changes of those that are there
    direction = gr.Radio([(NAMES[way], way) for way in ways], value=ways[0], label="Direction", visible=len(ways) > 1)
    strength = gr.Slider(
        0, 1, value=1.0 if task.strength is None else task.strength, label="Strength", visible=task.strength is not None
    )
    if update:
        return direction, gr.update(visible=task.takes_styles), strength
    style = _upload(label="Style image", sources=["upload", "clipboard"], elem_id="style", visible=task.takes_styles)
    return direction, style, strength


def _introduction(limits: Limits) -> str:
    return (
        f"Upload, paste or take an image of at most {limits.megapixels:g} megapixels and translate it. Nothing is "
        f"kept: images are removed after {KEPT_SECONDS // 60} minutes, and when the demo ends."
    )


def _examples(folder: Path) -> list[list[str]]:
    """Photos of the sample domains."""
    paths = [folder / f"example-{number}.png" for number in range(EXAMPLES)]
    for number, path in enumerate(paths):
        sample_image(number, 256).save(path)
    return [[str(path)] for path in paths]


class _Policy:
    """Adds the policy to the headers of every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


def launch(page: Any, *, host: str, port: int | None, password: str | None, upload: str) -> str:
    """Serve the page in threads of its own, and return its address.

    Args:
        page: the page.
        host: address to listen at.
        port: port to listen at; None: the first free one from 7860.
        password: what visitors have to enter, with any name; None: nothing.
        upload: largest file, such as `20mb`.

    Raises:
        CycleStyleError: the port is in use.
    """
    from starlette.middleware import Middleware

    def allowed(_: str, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (password or "").encode())

    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=allowed if password else None,
            auth_message="Any name, and the password of this demo." if password else None,
            max_file_size=upload,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            enable_monitoring=False,
            footer_links=[],
            app_kwargs={"middleware": [Middleware(_Policy)], "docs_url": None, "redoc_url": None},
            theme=gr.themes.Base(font=SYSTEM_FONTS, font_mono=["monospace"]),
            css=CSS,
        )
    except OSError as error:
        raise CycleStyleError(f"cannot listen at {host}:{port}: choose another --port") from error
    return str(address)
