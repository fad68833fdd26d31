"""Which files FFmpeg may open: containers that hold their own video, and nothing that leads on to somewhere else.

FFmpeg chooses a reader by content, and by name where it has one. Some readers open other files, devices or the network:
playlists (HLS, DASH), scripts (concat, AviSynth), session descriptions (SDP), image patterns, recordings in several
files. Some make pictures of any text. So the readers that may be used are listed, and none of them opens anything but
its own file.
"""

from typing import Any, BinaryIO

import av

from .video_clip_vidlada import VideoReadingError

# FFmpeg's names of the readers (`ffmpeg -demuxers`).
CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "live_flv", "asf", "ogg", "rm", "mxf", "gxf", "dv", "nut"),
    *("wtv", "dhav", "nsv", "nuv", "pva", "swf", "mpjpeg"),
    # streams without a container
    *("h264", "hevc", "vvc", "av1", "obu", "ivf", "m4v", "mpegvideo", "h263", "h261", "mjpeg", "vc1", "dirac", "dnxhd"),
    *("cavsvideo", "avs2", "avs3", "yuv4mpegpipe"),
    # pictures
    *("gif", "apng", "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "jpegxl_anim"),
    *("gif_pipe", "jpegxl_pipe", "ppm_pipe", "pgm_pipe", "pam_pipe"),
    # sound, for an error that says so
    *("mp3", "wav", "flac", "aac", "amr", "aiff"),
)


class _Nameless:
    """A file object of which FFmpeg sees the content alone."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def open_container(
    file: str | BinaryIO, options: dict[str, str] | None = None, codec_options: dict[str, str] | None = None
) -> Any:
    """Opens a video file with PyAV; FFmpeg opens nothing else for it, whatever its content asks for.

    Args:
        file: a local path, or a seekable binary file object.
        options: further ones of the container.
        codec_options: of the decoders that FFmpeg probes with. Only for containers whose header names all streams: PyAV
            17 crashes where FFmpeg finds one later.

    Returns:
        `av.container.InputContainer`. Its titles and tags are not trusted to be UTF-8.

    Raises:
        VideoReadingError: the content is of a kind that is not among `CONTAINERS`.
        av.FFmpegError, OSError: it cannot be opened.
    """
    # The protocol keeps a colon in a name from being taken for one.
    source = f"file:{file}" if isinstance(file, str) else _Nameless(file)
    protocols = "file" if isinstance(file, str) else "none"
    guards = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": protocols}
    try:
        return av.open(
            source,
            mode="r",
            options=codec_options,
            container_options={**(options or {}), **guards},
            metadata_errors="replace",
        )
    except av.ArgumentError as error:  # what FFmpeg raises for a reader that is not on the list
        raise VideoReadingError(
            "it is no video file but perhaps a playlist, a script, a text or a list of streams, which could make FFmpeg"
            " open other files or addresses. Pass the video itself, or convert it"
            " (`ffmpeg -i IN -c:v libx264 OUT.mp4`)"
        ) from error


__all__ = ["CONTAINERS", "open_container"]
