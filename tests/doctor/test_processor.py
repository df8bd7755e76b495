"""Advice on speed, from what processors call their instructions."""

import keras
import pytest

from tf_gnc.doctor import processor


def _model(dtype):
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(1, dtype=dtype)(inputs)
    model = keras.Model(inputs, outputs)
    model.dtype_policy = keras.DTypePolicy(dtype)
    return model


@pytest.mark.parametrize(
    ("flags", "dtype", "words"),
    [
        ("avx2 avx512_vnni avx512_bf16", "float32", ["--dtype=mixed_bfloat16"]),
        ("avx2 amx_bf16 amx_tile", "float32", ["amx_bf16"]),
        ("avx2 avx512_bf16", "mixed_bfloat16", []),
        ("avx2 avx512_bf16", "float64", []),
        ("avx2 avx512_vnni", "float32", []),
        ("avx2 avx_vnni", "mixed_bfloat16", ["slower here than float32"]),
        ("avx2 fma", "float32", ["TF_ENABLE_ONEDNN_OPTS=1"]),
        ("avx2 fma", "mixed_bfloat16", ["slower", "TF_ENABLE_ONEDNN_OPTS=1"]),
        ("", "mixed_bfloat16", []),
    ],
)
def test_speed_advice__of_a_processor__names_what_would_help(
    flags, dtype, words, monkeypatch
):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    advice = processor.speed_advice(_model(dtype), set(flags.split()))
    assert len(advice) == len(words)
    for sentence, word in zip(advice, words, strict=True):
        assert word in sentence


def test_speed_advice__variable_set_by_the_user__is_left_alone(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert processor.speed_advice(_model("float32"), {"avx2"}) == []
