"""The audit against plain Python loops and files whose faults are known."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

import tripletkit as tk


@pytest.fixture
def scan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def scan_text(text, name="train.txt"):
        (tmp_path / name).write_text(text)
        return name

    return scan_text


def kinds(audit):
    return {finding.kind: finding.count for finding in audit.findings()}


@pytest.mark.parametrize(
    ("text", "findings", "examples"),
    [
        ("a b c\na c d\nb a d\n", {}, {}),
        (
            "a b c\na b\na b d\na b c d\n",
            {"unreadable_lines": 2},
            {"unreadable_lines": "train.txt:2: expected 3 image names"},
        ),
        ("a b c\n\na b d\na b c\n", {}, {"repeated": "train.txt:4: a b c repeats line 1"}),
        (
            "a b c\na b b\na a b\na b a\na b b\n",
            {"degenerate": 4},
            {"degenerate": "train.txt:2: a b b names one image twice"},
        ),
        ("a a b\nb b b\n", {"degenerate": 2}, {}),
        (
            "a b c\na c b\na c b\n",
            {"contradictions": 1},
            {"contradictions": "train.txt:1: a b c, the other way round in line 2"},
        ),
        (
            "a b c\na c d\na d b\n",
            {"anchor_cycles": 1, "distance_cycles": 1},
            {
                "anchor_cycles": "train.txt:1: (a b) < (a c) < (a d) < (a b) by lines 1, 2, 3",
                "distance_cycles": "train.txt:1: (a b) < ",
            },
        ),
    ],
)
def test_audit_counts_and_names_each_kind_of_fault(scan, text, findings, examples):
    audit = tk.audit(scan(text))
    assert kinds(audit) == findings
    for kind, example in examples.items():
        assert getattr(audit, kind).examples[0].startswith(example)


def test_audit_leaves_degenerate_triplets_out_of_the_rest(scan):
    audit = tk.audit(scan("a b c\na b b\na a b\na b a\na b b\n"))
    assert (audit.n_triplets, audit.n_distinct, audit.n_images) == (5, 4, 3)
    assert (audit.pair_roles.n_pairs, audit.components.count) == (2, 1)
    audit = tk.audit(scan("a a b\nb b b\n"))
    assert audit.components.count == audit.pair_roles.n_pairs == 0


def test_audit_of_questions_says_nothing_of_answers(scan):
    audit = tk.audit(scan("a b c\na c b\na c d\na d b\n"), unanswered=True)
    assert not audit.findings()
    assert audit.mirrored.count == 1
    assert audit.contradictions is audit.anchor_cycles is audit.judgements is None
    assert audit.pair_roles is None


def test_audit_counts_pair_roles(scan):
    audit = tk.audit(scan("a b c\nb d a\nc a d\n"))
    roles = audit.pair_roles
    assert (roles.n_pairs, roles.n_near_only, roles.n_far_only) == (4, 1, 1)
    assert roles.both.count == 2
    assert roles.both.examples == [
        "train.txt:1: a b are near here, far in line 2",
        "train.txt:3: a c are near here, far in line 1",
    ]


def test_audit_warns_of_memory_only_if_pairs_recur_in_one_role(scan):
    pure = "".join(f"a b c{i}\n" for i in range(10))
    assert tk.audit(scan(pure)).pair_roles.is_memorable
    once = "".join(f"a{i} b{i} c{i}\n" for i in range(10))
    assert not tk.audit(scan(once)).pair_roles.is_memorable
    mixed = "".join(f"a{i} b{i} c{i}\na{i} d{i} b{i}\n" for i in range(10))
    assert not tk.audit(scan(mixed)).pair_roles.is_memorable


def test_audit_counts_usage(scan):
    usage = tk.audit(scan("a b c\na b d\n")).usage
    assert (usage.n_anchors, usage.minimum, usage.median, usage.maximum) == (1, 1, 1.5, 2)
    assert usage.n_once == 2
    assert usage.most_used == ["a (2 times)", "b (2 times)", "c (1 times)"]


def test_audit_against_names_what_is_shared(scan):
    ours, theirs = scan("a b c\nd e f\n"), scan("x y z\na c b\nd e y\nx y\n", "test.txt")
    audit = tk.audit(ours, against=[theirs])
    [overlap] = audit.against
    assert overlap.shared_images.examples[0] == "train.txt:1: a, also test.txt:2"
    assert overlap.shared_questions.examples == ["train.txt:1: a b c, also test.txt:2"]
    found = {"unreadable_lines": 1, "shared_images": 5, "shared_pairs": 3, "shared_questions": 1}
    assert kinds(audit) == found
    assert {finding.source for finding in audit.findings()} == {"test.txt"}


small_rows = st.lists(st.tuples(*[st.sampled_from("abcde")] * 3), min_size=1, max_size=12)


@pytest.mark.slow
@given(small_rows, small_rows)
def test_audit_counts_equal_loops(tmp_path_factory, ours, theirs):
    folder = tmp_path_factory.mktemp("loops")
    scans = []
    for name, rows in (("ours.txt", ours), ("theirs.txt", theirs)):
        (folder / name).write_text("".join(f"{a} {b} {c}\n" for a, b, c in rows))
        scans.append(folder / name)
    audit = tk.audit(scans[0], against=scans[1:])

    proper = [row for row in ours if len(set(row)) == 3]
    assert audit.degenerate.count == len(ours) - len(proper)
    assert audit.repeated.count == len(ours) - len(set(ours))
    both_ways = {(a, *sorted((b, c))) for a, b, c in proper if (a, c, b) in proper}
    assert audit.contradictions.count == len(both_ways)
    near = {frozenset((a, b)) for a, b, _ in proper}
    far = {frozenset((a, c)) for a, _, c in proper}
    assert audit.pair_roles.both.count == len(near & far)
    overlap = audit.against[0]
    assert overlap.shared_images.count == len(set(sum(ours, ())) & set(sum(theirs, ())))
    assert overlap.shared_pairs.count == len(all_pairs(ours) & all_pairs(theirs))
    assert overlap.shared_questions.count == len(all_questions(ours) & all_questions(theirs))


def all_pairs(rows):
    return {frozenset((a, other)) for a, *others in rows for other in others}


def all_questions(rows):
    return {(a, frozenset((b, c))) for a, b, c in rows}


def draw_scene(seed: int, size=(96, 72)) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = rng.integers(0, size[0] - 20), rng.integers(0, size[1] - 20)
        box = [x, y, x + rng.integers(5, 40), y + rng.integers(5, 40)]
        draw.ellipse([int(v) for v in box], fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


@pytest.fixture
def odd_images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        draw_scene(number).save(folder / f"scene{number}.png")
    (folder / "copy0.png").write_bytes((folder / "scene0.png").read_bytes())
    ImageEnhance.Brightness(draw_scene(1)).enhance(1.1).save(folder / "bright1.jpg", quality=90)
    draw_scene(5, (24, 24)).save(folder / "tiny.png")
    draw_scene(6, (400, 40)).save(folder / "long.png")
    frames = [draw_scene(seed) for seed in (7, 8)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    (folder / "broken.jpg").write_bytes(b"no image")
    draw_scene(9).save(folder / "twice.png")
    draw_scene(9).save(folder / "twice.jpg")
    return folder


def test_audit_looks_at_every_image(scan, odd_images):
    text = (
        "scene0 scene1 copy0.png\ntiny long moving\nbroken missing twice\nbright1 scene2 scene3\n"
    )
    audit = tk.audit(scan(text), odd_images)
    images = audit.images
    assert images.n_read == 9
    assert images.unlocated.count == 2
    assert images.unlocated.examples[0].startswith('train.txt:3: there is no image "missing"')
    assert 'one image for "twice", got 2' in images.unlocated.examples[1]
    assert images.unreadable.count == 1
    assert "broken.jpg" in images.unreadable.examples[0]
    assert images.several_frames.examples == ["train.txt:2: moving is 96 x 72 pixels, 2 frames"]
    assert images.tiny.examples == ["train.txt:2: tiny is 24 x 24 pixels"]
    assert images.extreme.examples == ["train.txt:2: long is 400 x 40 pixels"]
    assert images.same_content.examples == ["scene0 copy0.png"]
    assert images.look_alike.count == 1
    assert images.look_alike.examples[0].startswith("scene1 bright1 (")
    assert kinds(audit) == {"unlocated_images": 2, "unreadable_images": 1}


def test_audit_finds_images_across_files_under_other_names(scan, odd_images):
    ours = scan("scene0 scene1 scene2\n")
    theirs = scan("copy0 bright1 scene3\n", "test.txt")
    audit = tk.audit(ours, odd_images, against=[theirs])
    assert kinds(audit) == {"same_content": 1, "look_alike": 1}
    [overlap] = audit.against
    assert overlap.same_content.examples == ["scene0 copy0"]
    assert overlap.look_alike.examples[0].startswith("scene1 bright1 (")


@pytest.fixture
def empty_images(tmp_path) -> Path:
    """Draw scenes and what becomes of them where nothing is to be seen."""
    folder = tmp_path / "images"
    folder.mkdir()
    grey = np.asarray(draw_scene(1).convert("L"))
    wide = grey.astype(np.uint16)
    ink = np.full((*grey.shape, 4), 255, np.uint8)
    ink[..., 3] = np.where(grey < grey.mean(), 255, 0)
    black_ink = ink.copy()
    black_ink[..., :3] = 0
    page = Image.new("L", (96, 72), 255)
    ImageDraw.Draw(page).line([5, 5, 20, 60], fill=0)
    images = {
        "scene.png": draw_scene(0),
        "page.png": page,
        "night.png": page.point(lambda value: 255 - value),
        "all16.png": Image.fromarray(wide * 257),
        "flat.png": Image.new("RGB", (96, 72), (9, 200, 40)),
        "flat.jpg": Image.new("RGB", (96, 72), (90, 60, 40)),
        "flat16.png": Image.fromarray(np.full_like(wide, 900)),
        "clear.png": Image.new("RGBA", (96, 72), (0, 0, 0, 0)),
        "dark.png": Image.fromarray(grey // 16),
        "light.png": Image.fromarray(255 - grey // 16),
        "twelve.png": Image.fromarray(wide * 16),
        "eight.tif": Image.fromarray(wide),
        "white_ink.png": Image.fromarray(ink),
        "black_ink.png": Image.fromarray(black_ink),
        "white_ink.gif": Image.fromarray(ink).convert("PA").convert("RGBA"),
    }
    for name, image in images.items():
        image.save(folder / name)
    return folder


def test_audit_finds_images_in_which_nothing_is_seen(scan, empty_images):
    audit = tk.audit(
        scan(
            "scene page night\nall16 flat.png flat.jpg\nflat16 clear dark\n"
            "light twelve eight\nwhite_ink.png black_ink white_ink.gif\n"
        ),
        empty_images,
        examples=9,
    )
    assert kinds(audit) == {
        "blank_images": 4,
        "faint_images": 2,
        "few_bits_images": 2,
        "transparent_images": 2,
    }
    told = {
        kind: [example.split()[1] for example in getattr(audit.images, kind).examples]
        for kind in "blank faint few_bits transparent".split()
    }
    assert told == {
        "blank": ["flat.png", "flat.jpg", "flat16", "clear"],
        "faint": ["dark", "light"],
        "few_bits": ["twelve", "eight"],
        "transparent": ["white_ink.png", "white_ink.gif"],
    }
    assert audit.images.blank.examples[0].endswith("flat.png is of one colour (9, 200, 40)")
    assert "(12 bits)" in audit.images.few_bits.examples[0]
    assert audit.to_dict()["images"]["transparent"]["count"] == 2
    text = str(audit)
    assert "16-bit images with few bits used" in text
    assert "multiply" in text
    assert "ground that shows them" in text


def test_near_duplicates_are_those_of_a_plain_loop(tmp_path):
    """Copies of images: cut, made brighter, encoded anew, or all of it; and the originals."""
    paths = {}
    for seed in range(8):
        scene = draw_scene(seed, (120, 90))
        for name, image in (
            (f"{seed}.png", scene),
            (f"{seed}-cut.png", scene.crop((4, 3, 116, 87))),
            (f"{seed}-bright.png", ImageEnhance.Brightness(scene).enhance(1.15)),
            (f"{seed}-again.jpg", scene),
            (f"{seed}-all.jpg", ImageEnhance.Brightness(scene.crop((2, 2, 118, 88))).enhance(0.9)),
        ):
            paths[name] = tmp_path / name
            image.save(paths[name], quality=50)
    names = list(paths)
    rows = np.array([(n, n + 1, n + 2) for n in range(38)])
    found = tk.audit(tk.Triplets.from_array(rows, names), tmp_path, examples=999).images.look_alike
    looks = {name: imagehash.phash(Image.open(path).convert("RGB")) for name, path in paths.items()}
    # Of images with one and the same hash each is linked to the first alone.
    first = {str(look): name for name, look in reversed(looks.items())}
    expected = set()
    for one, other in combinations(names, 2):
        n_bits = looks[one] - looks[other]
        of_first = [first[str(looks[name])] == name for name in (one, other)]
        if (n_bits == 0 and of_first[0]) or (0 < n_bits <= 6 and all(of_first)):
            expected.add(f"{one} {other} ({n_bits} of 64 bits differ)")
    assert len(expected) >= 20
    assert set(found.examples) == expected
    assert found.count == len(expected)


def test_look_alikes_hardly_depend_on_size(tmp_path):
    scene = draw_scene(3, (900, 700))
    for name, size in (("large.jpg", (900, 700)), ("small.png", (90, 70)), ("other.png", None)):
        (scene.resize(size) if size else draw_scene(4)).save(tmp_path / name)
    (tmp_path / "t.txt").write_text("large small other\n")
    found = tk.audit(tmp_path / "t.txt", tmp_path).images.look_alike
    assert found.count == 1
    assert found.examples[0].startswith("large small (")


@pytest.mark.slow
@pytest.mark.shared
def test_audit_of_the_competition_files(shared):
    folder = shared / "food_triplets"
    train, test = (folder / f"{name}_triplets.txt" for name in ("train", "test"))
    audit = tk.audit(train, against=[test])
    assert (audit.n_triplets, audit.n_distinct, audit.repeated.count) == (59_515, 59_058, 457)
    assert audit.contradictions.count == 0
    assert audit.anchor_cycles.count == audit.distance_cycles.count == 0
    assert audit.pair_roles.both.count == 38
    assert audit.components.count == 9_867
    assert audit.against[0].shared_images.count == 0
    assert not audit.findings()
    questions = tk.audit(test, unanswered=True)
    assert (questions.mirrored.count, questions.repeated.count) == (136, 200)


@pytest.mark.parametrize(
    ("text", "options", "code", "said"),
    [
        ("a b c\na b c\n", ["--strict"], 0, "repeats line 1"),
        ("a b c\na b\n", [], 0, "lines that cannot be read"),
        ("a b c\na b\n", ["--strict"], 1, "lines that cannot be read"),
        ("a b c\na c b\na b d\n", [], 0, "  ! contradictions: A B C and A C B"),
        ("a b c\na c b\na b d\n", ["--unanswered", "--strict"], 0, "asked both ways"),
    ],
)
def test_audit_marks_findings_and_strict_fails_on_them(
    tripletkit, tmp_path, text, options, code, said
):
    (tmp_path / "t.txt").write_text(text)
    shown = tripletkit("audit", tmp_path / "t.txt", *options, code=code).stdout
    assert said in shown
    assert ("!" in shown) == ("No findings" not in shown)


@pytest.mark.parametrize("text", ["", "\n\n", "a b\n"])
def test_audit_refuses_a_file_without_triplets(tripletkit, tmp_path, text):
    path = tmp_path / "t.txt"
    path.write_text(text)
    result = tripletkit("audit", path, code=1)
    assert result.stdout == ""
    assert f"{path}:" in result.stderr


def test_audit_shows_as_many_examples_as_asked(tripletkit, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a b c\n" * 6)
    for n_examples in (0, 4):
        result = tripletkit("audit", "-", "--examples", n_examples, input=path.read_bytes())
        assert result.stdout.count("repeats line 1") == n_examples


def test_audit_cuts_long_names(tripletkit, tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(f"{'x' * 50_000} b c\n" * 2 + "b c d\n")
    for form in ([], ["--json"]):
        assert len(tripletkit("audit", path, *form).stdout) < 10_000


def test_questions_are_audited_as_such_by_their_heading(tripletkit, tmp_path):
    rows = "x.jpg,y.jpg,z.jpg\nx.jpg,z.jpg,y.jpg\n"
    found = {}
    for heading in ("anchor,positive,negative", "id,query,first,second"):
        extra = "7," if heading.startswith("id") else ""
        path = tmp_path / "t.csv"
        path.write_text(f"{heading}\n" + "".join(f"{extra}{row}\n" for row in rows.splitlines()))
        result = tripletkit("audit", path, "--json", "--strict")
        found[heading] = result.exit_code
        assert ("warning: " + str(path) + ': columns that are not read: "id"' in result.stderr) == (
            bool(extra)
        )
    assert found == {"anchor,positive,negative": 1, "id,query,first,second": 0}
