"""Indices in MATLAB's form, whole ones and one on which SciPy's parser crashes."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from kvg.catalogue.matlab import read_variables
from kvg.errors import DataError

CRASHES = (  # a file of ``savemat`` with some bytes changed: `loadmat` of SciPy 1.17.1 ends its process with a signal
    "c-r%I4DoSvQZUssQ1EpO(M`+DNmU5QNi0drFUqx2D9A6)tk6+#E=o--Nlj76&$ChpPApOI%P&(fvQRKEwKBE<A_XG@"
    "BQpjv0HdcbABbjRU|<7M91tcLutNEaNSGUl6Z7)&OA<>m^Ye<K>R90F41hQ(DZe7V!Vp4NLg@-4DBp-7IVZ6gq%$oq"
    "F*g-RgY36pK-kZR$9@ptfr>Lj`Q++np-{gDx%#<qY4m<Xl*Nol`W=w;vtY596G^=Qly3k8hI&~A=}>V1MAR_c"
)


def test_variables_come_flat(tmp_path):
    savemat(tmp_path / "a.mat", {"labels": np.array([[2, 1]]), "names": np.array(["pink", "red"], dtype=object)})
    labels, names = read_variables(tmp_path / "a.mat", ["labels", "names"])
    assert labels.tolist() == [2, 1]
    assert [str(name[0]) for name in names] == ["pink", "red"]


@pytest.mark.parametrize("content", [b"", b"no index", zlib.decompress(base64.b85decode("".join(CRASHES)))])
def test_a_damaged_index_is_named(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mat: index: .*; unpack the whole set"):
        read_variables(tmp_path / "a.mat", ["annotations"])


def test_a_missing_variable_is_named(tmp_path):
    savemat(tmp_path / "a.mat", {"labels": np.array([[2, 1]])})
    with pytest.raises(DataError, match=r"index: cannot be read .*annotations"):
        read_variables(tmp_path / "a.mat", ["annotations"])
