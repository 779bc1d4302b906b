"""The page of the demo, built with Gradio."""

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclestyle.commands.demo.studio import Limits, Studio, Wishes
from cyclestyle.errors import CycleStyleError, optional
from cyclestyle.images import has_video

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
gr = optional("gradio", "cyclestyle demo", "demo")

KEPT_SECONDS = 300
"""Seconds after which uploads and results are removed. They are removed at once when the demo ends."""
PHOTOS = Path(__file__).parents[2] / "data" / "photos"
THUMBNAIL = 144
"""Longest side of the thumbnails of styles, in pixels."""
BAR = gr.Progress()
"""The default by which Gradio finds the parameter of a function that shows progress."""
SYSTEM_FONTS = ["system-ui", "sans-serif"]
# The browser of a visitor asks nobody but this server, whatever the page links to.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: wss: data: blob:"
CSS = """
footer { display: none !important }
.gradio-container { max-width: 1100px !important; margin: 0 auto }
#styles .grid-container { grid-template-columns: repeat(auto-fill, minmax(76px, 1fr)) !important; padding-top: 0 }
#styles .grid-wrap { height: auto; max-height: none }
#styles .gallery-item { min-width: 0 }
#styles .caption-label { font-size: 0.7rem; max-width: 100% }
"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the page of a demo shows beside the checkpoints.

    Attributes:
        title: of the page.
        domains: names of the domains A and B.
        styles: example style images, for methods that take one.
    """

    title: str = "cyclestyle"
    domains: tuple[str, ...] = ("A", "B")
    styles: Sequence[Path] = ()


def _upload(**options: Any) -> Any:
    """An image whose file reaches the studio as it was sent, with its metadata.

    The method is replaced in the component itself: Gradio writes a file beside the module of every subclass.
    """
    image = gr.Image(type="filepath", **options)
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def build_page(studio: Studio, look: Look, *, waiting: int) -> Any:
    """Return the page.

    Args:
        studio: what does the work.
        look: what the page shows.
        waiting: requests that may wait; more are refused.
    """
    first = next(iter(studio.translators))
    with gr.Blocks(title=look.title, analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as page:
        gr.Markdown(f"# {look.title}\n{_introduction(studio.limits)}")
        with gr.Row():
            with gr.Column(min_width=300):
                image = _upload(label="Image", sources=["upload", "clipboard", "webcam"], elem_id="upload")
                checkpoint = gr.Dropdown(
                    list(studio.translators), value=first, label="Model", visible=len(studio.translators) > 1
                )
                choices = _choices(studio, look, first)
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
        gr.Examples(
            [[str(path)] for path in sorted(PHOTOS.glob("*.jpg"))], [image], label="Examples", elem_id="examples"
        )
        checkpoint.change(
            lambda name: [gr.update(**settings) for settings in _settings(studio, look, name).values()],
            checkpoint,
            list(choices.values()),
            api_visibility="private",
        )

        def clicked(name: str, event: gr.SelectData) -> str:  # type: ignore[name-defined]  # Gradio has no types
            chosen: str = studio.method(name).style_names[event.index]
            return chosen

        choices["gallery"].select(clicked, [checkpoint], [choices["style"]], api_visibility="private")

        wishes = [name for name in choices if name not in ("gallery", "paintings")]

        def translate(bar: Any = BAR, *given: Any) -> tuple[Any, Any]:
            try:
                name, upload, *chosen = given
                chosen_wishes = Wishes(**dict(zip(wishes, chosen, strict=True)))
                result = studio.translate(name, upload, chosen_wishes, lambda share: bar(share, desc="Translating"))
            except CycleStyleError as error:
                raise gr.Error(str(error), print_exception=False, title="Not translated") from error
            except (MemoryError, RuntimeError, ValueError) as error:
                raise gr.Error("The image cannot be translated.", print_exception=False) from error
            return (result.before, result.after), gr.DownloadButton(value=str(result.file), interactive=True)

        # What can be downloaded belongs to an earlier result as soon as there is another image, or a new translation
        off = {"fn": lambda: gr.DownloadButton(value=None, interactive=False), "outputs": download}
        image.change(**off, queue=False, api_visibility="private")
        button.click(**off, queue=False, api_visibility="private").then(
            translate,
            [checkpoint, image, *(choices[name] for name in wishes)],
            [slider, download],
            concurrency_limit=1,
            concurrency_id="translate",
            api_visibility="private",
        )
        if has_video():
            _add_video(studio, checkpoint, choices["direction"])
    page.queue(max_size=waiting, default_concurrency_limit=1, api_open=False)
    return page


def _add_video(studio: Studio, checkpoint: Any, direction: Any) -> None:
    def translate(name: str, video: str | None, way: str, bar: Any = BAR) -> str:
        try:
            wishes = Wishes(direction=way)
            return str(studio.translate_video(name, video, wishes, lambda share: bar(share, desc="Translating")))
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


def _choices(studio: Studio, look: Look, name: str) -> dict[str, Any]:
    """What a visitor may choose: a gallery of styles, examples of paintings, and a component for each of `Wishes`."""
    settings = _settings(studio, look, name)
    choices = {
        "gallery": gr.Gallery(
            show_label=False, elem_id="styles", allow_preview=False, buttons=[], **settings["gallery"]
        ),
        "style": gr.Dropdown(label="Style", elem_id="style_name", **settings["style"]),
        "second": gr.Dropdown(label="Mixed with", **settings["second"]),
        "share": gr.Slider(0, 1, value=0.5, label="Share of the second style", **settings["share"]),
        "direction": gr.Radio(label="Direction", **settings["direction"]),
        "painting": _upload(
            label="Style image", sources=["upload", "clipboard"], elem_id="style", **settings["painting"]
        ),
        "strength": gr.Slider(0, 1, label="Strength", **settings["strength"]),
        "preserve_color": gr.Checkbox(value=False, label="Keep the colours of the image", **settings["preserve_color"]),
    }
    files = [[str(path)] for path in look.styles]
    examples = gr.Examples(
        files, [choices["painting"]], label="Example styles", elem_id="paintings", **settings["paintings"]
    )
    return {**choices, "paintings": examples.dataset}


def _settings(studio: Studio, look: Look, name: str) -> dict[str, dict[str, Any]]:
    """What the components of `_choices` show for a checkpoint."""
    method, ways = studio.method(name), studio.directions(name)
    names = [(_in_words(style), style) for style in method.style_names]
    many = bool(names)
    photo = next(PHOTOS.glob("chelsea.jpg"))
    source, target = look.domains
    labels = {"AtoB": f"{source} → {target}", "BtoA": f"{target} → {source}"}
    gallery = [(image, _in_words(style)) for style, image in studio.thumbnails(name, photo, THUMBNAIL).items()]
    return {
        "gallery": {"value": gallery, "visible": many},
        "style": {"choices": names, "value": names[0][1] if many else None, "visible": many},
        "second": {"choices": [("nothing", ""), *names], "value": "", "visible": many},
        "share": {"visible": many},
        "direction": {"choices": [(labels[way], way) for way in ways], "value": ways[0], "visible": len(ways) > 1},
        "painting": {"visible": method.takes_styles},
        "strength": {"value": 1.0 if method.strength is None else method.strength},
        "preserve_color": {"visible": method.in_channels(ways[0]) == 3},
        "paintings": {"visible": method.takes_styles},
    }


def _in_words(style: str) -> str:
    return style.replace("_", " ")


def _introduction(limits: Limits) -> str:
    return (
        f"Upload, paste or take an image of at most {limits.megapixels:g} megapixels and translate it. Nothing is "
        f"kept: images are removed after {KEPT_SECONDS // 60} minutes, and when the demo ends."
    )


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
