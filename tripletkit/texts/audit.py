"""An audit as text for people and as plain values for scripts."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Any

from tripletkit import defaults
from tripletkit.data.audit.image_checks import ImageChecks
from tripletkit.data.audit.overlap import Overlap
from tripletkit.data.audit.triplet_audit import Audit, CycleTally, PairSummary
from tripletkit.data.questions import Judgements, Tally

_LABEL_WIDTH = 46
_NUMBER_WIDTH = 11
_TEXT_WIDTH = 88

# What each finding is called in the last lines.
_FINDING_NAMES = {
    "unreadable_lines": "lines that cannot be read",
    "degenerate": "triplets that name one image twice",
    "contradictions": "contradicted questions",
    "anchor_cycles": "cycles of one anchor",
    "distance_cycles": "cycles over all distances",
    "unlocated_images": "names without exactly one image",
    "unreadable_images": "images that cannot be decoded",
    "shared_images": "images shared",
    "shared_pairs": "pairs shared",
    "shared_questions": "questions shared",
    "same_content": "images shared under another name",
    "look_alike": "pairs of images that look alike",
}


def jsonable(audit: Audit) -> dict[str, Any]:
    """Return an audit as JSON can hold it; the keys are the attributes of `Audit`."""
    findings = [asdict(finding) for finding in audit.findings()]
    return asdict(audit) | {"findings": findings}


def describe_audit(audit: Audit) -> str:
    """Return an audit as sections of aligned lines, findings marked with `!`."""
    sections = [_triplets(audit), _names(audit), _consistency(audit), _pairs(audit)]
    if audit.images:
        sections.append(_images(audit.images))
    sections += [_overlap(overlap) for overlap in audit.against]
    sections.append(_verdict(audit))
    return "\n\n".join("\n".join(lines) for lines in sections)


def _triplets(audit: Audit) -> list[str]:
    lines = [audit.source]
    lines += _fault("lines that cannot be read", audit.unreadable_lines)
    lines.append(_line("triplets", audit.n_triplets))
    lines.append(_line("distinct", audit.n_distinct))
    lines += _note("repeats of an earlier line", audit.repeated)
    lines += _fault("degenerate: one image named twice", audit.degenerate)
    if audit.degenerate.count:
        lines += _text("Degenerate triplets have no answer to learn; they are left out below.")
    return lines


def _names(audit: Audit) -> list[str]:
    usage = audit.usage
    lines = [
        "Images by name",
        _line("images", audit.n_images),
        _line("anchors among them", usage.n_anchors),
        _line("times named: fewest", usage.minimum),
        _line("             median", usage.median),
        _line("             most", usage.maximum),
        _line("named once only", usage.n_once),
    ]
    if usage.most_used:
        lines += _text(f"Most named: {', '.join(usage.most_used)}.")
    return lines


def _consistency(audit: Audit) -> list[str]:
    lines = ["Consistency"]
    if audit.contradictions is None:
        lines += _note("asked both ways: A B C and A C B", audit.mirrored)
        return lines
    lines += _fault("contradictions: A B C and A C B", audit.contradictions)
    lines += _cycle_lines("preferences in a circle at one anchor", audit.anchor_cycles)
    lines += _cycle_lines("circles over all compared distances", audit.distance_cycles)
    if audit.contradictions.count or audit.distance_cycles.count:
        lines += _text(
            "Contradictions cannot both be right, and the distances of a circle (B before C, C "
            "before D, D before B) cannot all hold, whatever the model. Look at the lines named, "
            "or accept them as noise. If B and C are in chance order here, so that this is a "
            "file of questions, nothing is wrong: pass `unanswered=True`."
        )
    if audit.judgements:
        lines += _judgement_lines(audit.judgements)
    return lines


def _cycle_lines(label: str, cycles: CycleTally) -> list[str]:
    lines = _fault(label, cycles)
    if cycles.count:
        lines.insert(1, _line("  triplets inside them", cycles.n_triplets))
    return lines


def _judgement_lines(judgements: Judgements) -> list[str]:
    lines = [
        _line("questions judged several times", judgements.n_questions),
        _line("  judgements of these", judgements.n_judgements),
        _share("  agreement of two of them", judgements.agreement),
        _share("  best accuracy anyone can have on these", judgements.ceiling),
        _share("  and on the whole file", judgements.overall_ceiling),
    ]
    if judgements.ceiling < 1:
        lines += _text(
            "Where judges disagree, the most that an answerer can get right is the majority: "
            "read every accuracy against this ceiling, not against 100%."
        )
    return lines


def _pairs(audit: Audit) -> list[str]:
    components, roles = audit.components, audit.pair_roles
    lines = ["Pairs"]
    if roles:
        lines += [
            _line("pairs of images compared", roles.n_pairs),
            _line("  always near", roles.n_near_only),
            _line("  always far", roles.n_far_only),
        ]
        lines += _note("  near in one triplet, far in another", roles.both)
        lines.append(_line("  in more than one triplet", roles.n_recurring))
        lines.append(_share("triplets with such a pair", roles.memorable_share))
    lines += [
        _line("components (pairs linked by triplets)", components.count),
        _line("  pairs in the largest", components.largest_pairs),
        _line("  triplets in the largest", components.largest_triplets),
    ]
    if roles and roles.is_memorable:
        lines += _text(_memory_warning(roles))
    return lines


def _memory_warning(roles: PairSummary) -> str:
    both = f"only {roles.both.count:,} are" if roles.both.count else "none is"
    return (
        f"Of {roles.n_recurring:,} pairs that recur, {both} near in one triplet and far in "
        "another. So a random validation split can be solved by remembering the names of pairs, "
        "without looking at an image, and its score means little. Split with "
        "`tripletkit split` by image (no image in common) or by component (no pair in common, "
        "keeps every triplet)."
    )


def _images(images: ImageChecks) -> list[str]:
    lines = ["Image files", _line("decoded", images.n_read)]
    lines += _fault("names without exactly one image", images.unlocated)
    lines += _fault("cannot be decoded", images.unreadable)
    lines += _note("several frames or pages (the first is used)", images.several_frames)
    lines += _note(f"tiny: below {defaults.TINY_SIDE_PX} pixels", images.tiny)
    lines += _note(f"extreme: over {defaults.EXTREME_ASPECT} times as long as wide", images.extreme)
    lines += _note("same content as another name", images.same_content)
    lines += _note("pairs that look alike", images.look_alike)
    if images.unlocated.count or images.unreadable.count:
        lines += _text("Training and answering need these: mend them, or pass `skip_bad=True`.")
    if images.same_content.count or images.look_alike.count:
        lines += _text(
            "The same image under two names can stand on both sides of a split. Give it one "
            "name, or keep both names on one side."
        )
    return lines


def _overlap(overlap: Overlap) -> list[str]:
    lines = [f"Shared with {overlap.source}", _line("its triplets", overlap.n_triplets)]
    lines += _fault("its lines that cannot be read", overlap.unreadable_lines)
    lines += _fault("images in both", overlap.shared_images)
    lines += _fault("pairs in both", overlap.shared_pairs)
    lines += _fault("questions in both", overlap.shared_questions)
    if overlap.same_content is not None:
        lines += _fault("same content under another name", overlap.same_content)
        lines += _fault("pairs of images that look alike", overlap.look_alike)
    if overlap.shared_pairs.count:
        lines += _text(
            "Pairs in both can be answered from memory: do not take a score on one file after "
            "training on the other for a measure of how new images will do."
        )
    elif overlap.shared_images.count:
        lines += _text(
            "No pair is shared, so nothing can be answered by remembering pairs; but the score "
            "says how known images do in new questions, not how new images will do."
        )
    return lines


def _verdict(audit: Audit) -> list[str]:
    findings = audit.findings()
    if not findings:
        return ["No findings."]
    lines = ["Findings"]
    for finding in findings:
        where = "" if finding.source == audit.source else f" ({finding.source})"
        lines.append(_line(_FINDING_NAMES[finding.kind] + where, finding.count, "!"))
    return lines


def _line(label: str, number: float, mark: str = " ") -> str:
    return f"  {mark} {label:<{_LABEL_WIDTH}}{number:>{_NUMBER_WIDTH},.10g}"


def _share(label: str, share: float) -> str:
    return f"    {label:<{_LABEL_WIDTH}}{share:>{_NUMBER_WIDTH}.1%}"


def _fault(label: str, found: Tally | CycleTally) -> list[str]:
    return _counted(label, found, "!" if found.count else " ")


def _note(label: str, found: Tally) -> list[str]:
    return _counted(label, found, " ")


def _counted(label: str, found: Tally | CycleTally, mark: str) -> list[str]:
    lines = [_line(label, found.count, mark)]
    lines += [f"        {example}" for example in found.examples]
    if found.examples and found.count > len(found.examples):
        lines.append("        ...")
    return lines


def _text(text: str) -> list[str]:
    return textwrap.wrap(text, _TEXT_WIDTH, initial_indent="    ", subsequent_indent="    ")
