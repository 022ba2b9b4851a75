import itertools
import pickle

import numpy as np
import pytest

from tripletkit.errors import WeightsError
from tripletkit.features.torch_weights import _ALLOWED, read_state_dict

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
FACTS = {"little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def literal(value):
    """Give the opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(key, n_elements, offset, size, stride, storage="FloatStorage"):
    """Give the opcodes that push a tensor, as PyTorch writes them."""
    persistent_id = (
        b"(" + literal("storage") + b"ctorch\n" + storage.encode() + b"\n" + literal(key)
    ) + (literal("cpu") + literal(n_elements) + b"NtQ")
    arguments = literal(offset) + literal(size) + literal(stride) + b"\x89" + ORDERED_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent_id + arguments + b"tR"


def state_dict(tensors, *, attributes=b""):
    items = b"".join(literal(name) + value for name, value in tensors.items())
    return b"\x80\x02" + ORDERED_DICT + b"(" + items + b"u" + attributes + b"."


def make_file(folder, tensors, storages, **changes):
    """Write an old-style file; `changes` replace one of its five pickles."""
    parts = {
        "magic_number": pickle.dumps(MAGIC_NUMBER, 2),
        "protocol": pickle.dumps(1001, 2),
        "facts": pickle.dumps(FACTS, 2),
        "state": state_dict(tensors),
        "keys": pickle.dumps(sorted(storages), 2),
    } | changes
    raw = b"".join(
        len(storages[key]).to_bytes(8, "little") + storages[key].tobytes()
        for key in sorted(storages)
    )
    path = folder / "weights.pth"
    path.write_bytes(b"".join(parts.values()) + raw)
    return path


def make_small_file(folder, **changes):
    tensors = {
        "conv.weight": tensor("11", 6, 0, (2, 3), (3, 1)),
        "bn.num_batches_tracked": tensor("12", 1, 0, (), (), "LongStorage"),
    }
    storages = {"11": np.arange(6, dtype="<f4"), "12": np.array([7], "<i8")}
    return make_file(folder, tensors, storages, **changes)


def assert_refused(path, reason=""):
    with pytest.raises(WeightsError) as refusal:
        read_state_dict(path)
    message = str(refusal.value)
    assert str(path) in message
    assert "expected" in message
    assert reason in message
    assert "not one: ." not in message


def test_read_state_dict_keeps_names_order_shapes_and_values(tmp_path):
    state = read_state_dict(make_small_file(tmp_path))

    assert list(state) == ["conv.weight", "bn.num_batches_tracked"]
    np.testing.assert_array_equal(state["conv.weight"], [[0, 1, 2], [3, 4, 5]])
    assert state["conv.weight"].dtype == np.float32
    assert state["bn.num_batches_tracked"].shape == ()
    assert state["bn.num_batches_tracked"] == 7


@pytest.mark.parametrize(
    ("storage", "dtype"),
    [
        ("DoubleStorage", "float64"),
        ("FloatStorage", "float32"),
        ("HalfStorage", "float16"),
        ("LongStorage", "int64"),
        ("IntStorage", "int32"),
        ("ShortStorage", "int16"),
        ("CharStorage", "int8"),
        ("ByteStorage", "uint8"),
        ("BoolStorage", "bool"),
    ],
)
def test_read_state_dict_knows_each_storage_type(tmp_path, storage, dtype):
    values = np.array([0, 1, 1], dtype)
    path = make_file(tmp_path, {"x": tensor("1", 3, 0, (3,), (1,), storage)}, {"1": values})

    array = read_state_dict(path)["x"]

    assert array.dtype == dtype
    np.testing.assert_array_equal(array, values)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (3, 4), (4, 1)),
        (0, (4, 3), (1, 4)),
        (5, (2, 3), (7, 2)),
        (0, (32, 3, 3, 3), (1, 288, 96, 32)),
        (2, (3, 5), (0, 1)),
        (1, (4, 3), (1, 1)),
        (863, (1, 1), (9, 9)),
        (0, (2, 0, 3), (3, 3, 1)),
    ],
    ids=["whole", "transposed", "gaps", "channels-last", "expanded", "overlap", "last", "empty"],
)
def test_read_state_dict_rebuilds_strided_tensors_like_a_plain_loop(tmp_path, offset, size, stride):
    storage = np.random.default_rng(0).standard_normal(864).astype("<f4")
    path = make_file(tmp_path, {"x": tensor("1", 864, offset, size, stride)}, {"1": storage})
    expected = np.empty(size, np.float32)
    for index in itertools.product(*map(range, size)):
        expected[index] = storage[offset + sum(i * s for i, s in zip(index, stride, strict=True))]

    array = read_state_dict(path)["x"]

    np.testing.assert_array_equal(array, expected, strict=True)
    assert not array.flags.writeable


def test_read_state_dict_lets_tensors_share_a_storage(tmp_path):
    tensors = {"a": tensor("1", 4, 0, (4,), (1,)), "b": tensor("1", 4, 2, (2,), (1,))}

    state = read_state_dict(make_file(tmp_path, tensors, {"1": np.arange(4, dtype="<f4")}))

    np.testing.assert_array_equal(state["b"], [2, 3])
    assert np.shares_memory(state["a"], state["b"])


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (1, (2, 3), (3, 1)),
        (6, (1,), (1,)),
        (0, (2,), (6,)),
        (0, (5,), (2**62,)),
        (2**70, (1,), (1,)),
        (0, (2**40, 2**40), (0, 0)),
        (-1, (2,), (1,)),
        (5, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2, 3), (3,)),
        (0, (2.0,), (1,)),
        (0, 6, 1),
        (0, (1,) * 100, (1,) * 100),
    ],
)
def test_read_state_dict_refuses_tensors_outside_their_storage(tmp_path, offset, size, stride):
    storages = {"1": np.arange(6, dtype="<f4")}
    assert_refused(make_file(tmp_path, {"x": tensor("1", 6, offset, size, stride)}, storages))


@pytest.mark.parametrize("part", ["magic_number", "protocol", "facts", "state", "keys"])
def test_read_state_dict_runs_no_code_from_the_file(tmp_path, part):
    trace = tmp_path / "trace"
    malicious = b"cos\nsystem\n(" + literal(f"touch {trace}") + b"tR."
    path = make_small_file(tmp_path, **{part: malicious})

    assert_refused(path, "'os.system'")
    assert not trace.exists()
    pickle.loads(malicious)
    assert trace.exists(), "the pickle must be dangerous for this test to mean anything"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "namedtuple"),
    ],
)
def test_read_state_dict_refuses_every_other_name(tmp_path, module, name):
    # Protocol 4's opcode, which also takes dotted names.
    asked = b"\x80\x04" + pickle.dumps(module, 4)[11:-2] + pickle.dumps(name, 4)[11:-2] + b"\x93."
    assert_refused(make_small_file(tmp_path, state=asked), f"'{module}.{name}'")


@pytest.mark.parametrize(
    "name",
    ["collections\nOrderedDict", "torch._utils\n_rebuild_tensor_v2", "torch\nFloatStorage"],
)
def test_read_state_dict_lets_no_file_alter_what_it_hands_out(tmp_path, name):
    before = [dict(getattr(thing, "__dict__", {})) for thing in _ALLOWED.values()]
    altering = b"c" + name.encode() + b"\n(N" + literal({"size": (1,), "keys": 1}) + b"tb."

    assert_refused(make_small_file(tmp_path, state=altering))
    assert before == [dict(getattr(thing, "__dict__", {})) for thing in _ALLOWED.values()]


def test_read_state_dict_drops_the_attributes_of_the_dict(tmp_path):
    values = {"x": tensor("1", 1, 0, (1,), (1,))}
    attributes = literal({"_metadata": {"": {"version": 1}}, "items": 3}) + b"b"
    state = state_dict(values, attributes=attributes)

    path = make_file(tmp_path, values, {"1": np.ones(1, "<f4")}, state=state)

    assert list(read_state_dict(path)) == ["x"]


@pytest.mark.slow
def test_read_state_dict_refuses_a_file_cut_anywhere(tmp_path):
    path = make_small_file(tmp_path)
    whole = path.read_bytes()
    for n_bytes in range(len(whole)):
        path.write_bytes(whole[:n_bytes])
        assert_refused(path)


@pytest.mark.slow
def test_read_state_dict_survives_every_flipped_bit(tmp_path):
    path = make_small_file(tmp_path)
    whole = path.read_bytes()
    n_refused = 0
    for position, bit in itertools.product(range(len(whole)), range(8)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            read_state_dict(path)
        except WeightsError:
            n_refused += 1
    # What passes changed a number, a name or a fact that nothing depends on.
    assert n_refused > 4 * len(whole)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"magic_number": pickle.dumps(1, 2)}, "magic number"),
        ({"protocol": pickle.dumps(1002, 2)}, "protocol version"),
        ({"facts": pickle.dumps(FACTS | {"little_endian": False}, 2)}, "little-endian"),
        ({"state": pickle.dumps([1, 2], 2)}, "list"),
        ({"state": pickle.dumps({"epoch": 3}, 2)}, "maps str to int"),
        ({"state": pickle.dumps({3: "x"}, 2)}, "maps int to str"),
        ({"state": b"\x80\x02" + literal("elsewhere") + b"Q."}, "something outside"),
        (
            {"state": b"\x80\x02" + literal(("storage", "O", "11", "cpu", 6, None)) + b"Q."},
            "unknown type 'O'",
        ),
        ({"keys": pickle.dumps(["11"], 2)}, "storages that it lists"),
        ({"keys": pickle.dumps(["11", "11", "12"], 2)}, "storages that it lists"),
        ({"keys": pickle.dumps(11, 2)}, "int"),
        ({"keys": pickle.dumps(["12", "11"], 2)}, "has 6 numbers, not 1"),
    ],
)
def test_read_state_dict_says_what_is_wrong(tmp_path, changes, reason):
    assert_refused(make_small_file(tmp_path, **changes), reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"<!DOCTYPE html>", "15 bytes"),
        (b"PK\x03\x04rest of a zip archive", "_use_new_zipfile_serialization=False"),
    ],
)
def test_read_state_dict_refuses_other_files(tmp_path, content, reason):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert_refused(path, reason)
