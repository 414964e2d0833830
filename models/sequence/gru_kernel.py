"""The compiled loop of a GRU over a single history, for the request path.

torch's GRU needs 1 to 2 ms for one history of 50 events, most of it overhead per step.

Shapes: W positions, D dim.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def last_hidden(inputs: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return the hidden state of a GRU after the last position: (D,) float32.

    The gates are those of `torch.nn.GRU`, in the order reset, update, new. The first hidden state
    is zero.

    Args:
        inputs: (W, 3 D) float32, the inputs times their weights plus their bias.
        weight: (D, 3 D) float32, the transposed weights of the hidden state.
        bias: (3 D,) float32, the bias of the hidden state.
    """
    dim = weight.shape[0]
    one = np.float32(1)
    hidden = np.zeros(dim, dtype=np.float32)
    of_hidden = np.empty(3 * dim, dtype=np.float32)
    for step in range(len(inputs)):
        of_hidden[:] = bias
        for row in range(dim):
            value = hidden[row]
            for column in range(3 * dim):
                of_hidden[column] += value * weight[row, column]
        for place in range(dim):
            reset = one / (one + np.exp(-(inputs[step, place] + of_hidden[place])))
            update = one / (one + np.exp(-(inputs[step, dim + place] + of_hidden[dim + place])))
            new = np.tanh(inputs[step, 2 * dim + place] + reset * of_hidden[2 * dim + place])
            hidden[place] = (one - update) * new + update * hidden[place]
    return hidden
