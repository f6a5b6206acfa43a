"""What one would say about a picture of digits, worked out from their boxes."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the centre", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
_LARGE = 0.3  # of the picture's shorter side, and higher

Box = list[float]  # left, top, right, bottom


def noun(label: int) -> str:
    """A digit with its article."""
    return f"{'an' if label == 8 else 'a'} {WORDS[label]}"


def reading_order(boxes: list[Box]) -> list[int]:
    """Line by line, from left to right.

    A line is the box whose centre is highest of those that are left, and all whose centre is above
    its bottom.
    """
    left = sorted(range(len(boxes)), key=lambda i: _centre(boxes[i])[1])
    order: list[int] = []
    while left:
        bottom = boxes[left[0]][3]
        line = [i for i in left if _centre(boxes[i])[1] < bottom]
        order += sorted(line, key=lambda i: _centre(boxes[i])[0])
        left = [i for i in left if i not in line]
    return order


def sentence(labels: list[int], boxes: list[Box]) -> str:
    """Each digit and where it lies of the next: "a three left of a seven above a two"."""
    said = noun(labels[0])
    for i in range(1, len(labels)):
        said += f" {_relation(boxes[i - 1], boxes[i])} {noun(labels[i])}"
    return said


def region(label: int, box: Box, height: int, width: int) -> str:
    """A digit by itself: "a small three at the top left"."""
    x, y = _centre(box)
    size = "large" if box[3] - box[1] >= _LARGE * min(height, width) else "small"
    return f"a {size} {WORDS[label]} {_PLACES[int(3 * y / height)][int(3 * x / width)]}"


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _relation(box: Box, other: Box) -> str:
    (x, y), (other_x, other_y) = _centre(box), _centre(other)
    if abs(other_x - x) >= abs(other_y - y):
        return "left of" if x < other_x else "right of"
    return "above" if y < other_y else "below"
