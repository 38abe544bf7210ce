"""B33: nothing warns unheard."""

import warnings

import pytest


@pytest.mark.parametrize("kind", [DeprecationWarning, PendingDeprecationWarning, FutureWarning, UserWarning])
def test_b33_a_warning_in_a_test_is_an_error(kind):
    with pytest.raises(kind, match="heard"):
        warnings.warn("heard", kind, stacklevel=1)
