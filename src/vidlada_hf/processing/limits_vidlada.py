"""What a video may cost before it is refused: safe for files of strangers, wide enough for any sound recording."""

from dataclasses import dataclass

_SMALL = 1_000_000  # bytes of a file that may cost little


@dataclass(frozen=True)
class ReadingLimits:
    """Limits of reading one video; each has its own error. `dataclasses.replace` changes some.

    Attributes:
        max_pixels: the most pixels (width x height) of a frame; 8K video has 35 million. A file under 1 MB may have
            `max_small_file_pixels`, since a decoder keeps up to some 20 frames.
        max_small_file_pixels: see `max_pixels`.
        max_seconds_per_byte: the longest duration that a header may declare beyond what is there, for each byte.
        max_declared_ratio: the most frames that a file which was cut short may declare for each one that is there.
        max_decoded_pixels: the most pixels that are decoded on the way to the wanted frames, those between two wanted
            ones included. A file over 1 MB may take 100,000 more for each further byte.
        max_folder_entries: the most entries of a folder of images.
        max_download_bytes: the most bytes that are fetched from an address, or taken from a pipe.
        max_download_seconds: the longest time that fetching may take.
    """

    max_pixels: int = 8192 * 4352
    max_small_file_pixels: int = 4096 * 2304
    max_seconds_per_byte: float = 1.0
    max_declared_ratio: float = 100.0
    max_decoded_pixels: int = 4_000_000_000
    max_folder_entries: int = 1_000_000
    max_download_bytes: int = 2 << 30
    max_download_seconds: float = 600.0

    def pixels_of(self, file_size: int) -> int:
        """The most pixels of a frame in a file of `file_size` bytes."""
        return min(self.max_pixels, self.max_small_file_pixels) if file_size < _SMALL else self.max_pixels

    def decoded_pixels_of(self, file_size: int) -> int:
        """The most pixels that are decoded for a file of `file_size` bytes."""
        return self.max_decoded_pixels + 100_000 * max(0, file_size - _SMALL)


DEFAULT_LIMITS = ReadingLimits()

__all__ = ["DEFAULT_LIMITS", "ReadingLimits"]
