"""What an independent program says of the evaluator's numbers: writes the files of test/fixtures/eval but features.npz, which it reads.

    python3 test/oracle/eval_expected.py

Needs numpy, scipy and scikit-image (Debian: python3-scipy, python3-skimage); about ten seconds; float64. Where there is a second way to a number
it is taken too, and both must agree.

numerics.npz has what goes in and what must come out, under dotted names:
    gaussian.<case>.{mean1,cov1,mean2,cov2,distance}    `rotated`, `steep` and `lines` have distances that follow from how they are made; `plane`
                                                        has a closed form; `full` is scipy's general square root
    set.<case>.{real,fake}                              features; of the case `torch` they lie in features.npz
    set.<case>.{frechet,precision<k>,recall<k>,kid}     kid (mean, deviation) of 10 subsets of 25 under seed 7; `kid.all` is of the whole sets
    score.<splits>                                      Inception Score (mean, deviation) of features.npz's logits
    picture.<case>.{a,b,psnr,ssim}                      in [-1, 1]; psnr is pooled, ssim the mean over pictures
    spectrum                                            standard deviations of `torch`'s real features along principal directions
    bias.{variances,counts,simulated}                   mean distance of pairs of sets drawn from one Gaussian
adm.npz, pytorch-fid.npz: reference statistics of 8 features as those programs write them.
"""
import math
import os
import sys

sys.dont_write_bytecode = True

import numpy
import scipy.linalg
import scipy.spatial.distance
import scipy.special
import scipy.stats
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "eval")
random = numpy.random.Generator(numpy.random.PCG64(5))
out = {}


# --- random numbers as src/core/random.ts defines them


def philox(counter, key):
    c, k, word = list(counter), list(key), 2**32 - 1
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [right >> 32 ^ c[1] ^ k[0], right & word, left >> 32 ^ c[3] ^ k[1], left & word]
        k = [k[0] + 0x9E3779B9 & word, k[1] + 0xBB67AE85 & word]
    return c


def key(seed, purpose):
    fnv = 0x811C9DC5
    for byte in purpose.encode():
        fnv = (fnv ^ byte) * 0x01000193 % 2**32
    return philox([fnv, 0, 0, 0], [seed % 2**32, seed >> 32])[:2]


def permutation(key, epoch, n):
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        j = philox([i // 4, 0, epoch, 0], key)[i % 4] * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return order


# --- distances


def gaussian(name, mean1, cov1, mean2, cov2, distance):
    for part, value in (("mean1", mean1), ("cov1", cov1), ("mean2", mean2), ("cov2", cov2), ("distance", distance)):
        out[f"gaussian.{name}.{part}"] = numpy.asarray(value, dtype=float)


def by_root(m1, s1, m2, s2):
    """The formula as it stands, by a general matrix square root: right where nothing is singular."""
    root = scipy.linalg.sqrtm(s1 @ s2)
    return ((m1 - m2) ** 2).sum() + numpy.trace(s1 + s2 - 2 * root.real)


def by_data(x, y):
    """From the features alone: the trace of the root is the sum of the singular values of X Y^T. Right for singular covariances too."""
    a, b = x - x.mean(0), y - y.mean(0)
    n, m = len(a) - 1, len(b) - 1
    common = scipy.linalg.svdvals(a @ b.T).sum() / math.sqrt(n * m)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() / n + (b**2).sum() / m - 2 * common


def gaussians():
    mean1, mean2 = random.normal(size=9), random.normal(size=9)
    turn = scipy.stats.ortho_group.rvs(9, random_state=1)
    v1, v2 = 10.0 ** numpy.arange(0, -18, -2), 10.0 ** numpy.array([-1, -3, 1, -2, -16, -5, -9, -14, -12.0])
    gaussian("rotated", mean1, turn * v1 @ turn.T, mean2, turn * v2 @ turn.T,
             ((mean1 - mean2) ** 2).sum() + ((numpy.sqrt(v1) - numpy.sqrt(v2)) ** 2).sum())
    # a few directions that both share, and many of little variance in which they differ: roots of squares would lose the distance
    turn = scipy.stats.ortho_group.rvs(40, random_state=2)
    v1, v2 = numpy.array([1, 2, 3, 4] + 36 * [1e-6]), numpy.array([1, 2, 3, 4] + 36 * [4e-6])
    gaussian("steep", numpy.zeros(40), turn * v1 @ turn.T, numpy.zeros(40), turn * v2 @ turn.T, 36e-6)
    u, v = random.normal(size=5), random.normal(size=5)
    gaussian("lines", u, numpy.outer(u, u), v, numpy.outer(v, v), ((u - v) ** 2).sum() + u @ u + v @ v - 2 * abs(u @ v))
    s1, s2 = numpy.array([[2, 0.5], [0.5, 1.0]]), numpy.array([[1, -0.8], [-0.8, 3.0]])
    trace = math.sqrt(numpy.trace(s1 @ s2) + 2 * math.sqrt(numpy.linalg.det(s1) * numpy.linalg.det(s2)))
    gaussian("plane", [0, 1], s1, [3, 1], s2, 9 + numpy.trace(s1 + s2) - 2 * trace)
    s1, s2 = (numpy.cov(random.normal(size=(60, 20)) @ random.normal(size=(20, 20)), rowvar=False) for _ in range(2))
    mean1, mean2 = random.normal(size=20), random.normal(size=20)
    distance = by_root(mean1, s1, mean2, s2)
    values = numpy.sqrt(numpy.linalg.eigvals(s1 @ s2).real).sum()
    assert abs(((mean1 - mean2) ** 2).sum() + numpy.trace(s1) + numpy.trace(s2) - 2 * values - distance) < 1e-10 * distance
    gaussian("full", mean1, s1, mean2, s2, distance)


# --- sets of features


def kernel_distance(x, y):
    """Each pair by itself, summed without error."""
    def mean(a, b, same):
        values = [(float(p @ q) / len(p) + 1) ** 3 for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        return math.fsum(values) / len(values)
    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def covered(points, manifold, k):
    radii = numpy.sort(scipy.spatial.distance.cdist(manifold, manifold), axis=1)[:, k]
    return (scipy.spatial.distance.cdist(points, manifold) <= radii).any(1).mean()


def sets(real, fake):
    cases = {
        "torch": (real, fake),
        # fewer pictures than features: both covariances are singular
        "few": (random.normal(size=(40, 64)).astype("f4"), 0.3 + 1.2 * random.normal(size=(30, 64)).astype("f4")),
        # a mean that is large beside the deviation
        "offset": (50 + random.normal(size=(70, 5)), 50.5 + random.normal(size=(60, 5))),
    }
    for name, (x, y) in cases.items():
        if name != "torch":
            out[f"set.{name}.real"], out[f"set.{name}.fake"] = x, y
        x, y = x.astype(float), y.astype(float)
        out[f"set.{name}.frechet"] = by_data(x, y)
        if name == "offset":
            root = by_root(x.mean(0), numpy.cov(x, rowvar=False), y.mean(0), numpy.cov(y, rowvar=False))
            assert abs(root - out[f"set.{name}.frechet"]) < 1e-10
        for k in (1, 3, 5):
            out[f"set.{name}.precision{k}"], out[f"set.{name}.recall{k}"] = covered(y, x, k), covered(x, y, k)
        picks = [[permutation(key(7, f"kid/{side}"), s, len(rows))[:25] for s in range(10)] for side, rows in (("real", x), ("fake", y))]
        values = [kernel_distance(x[a], y[b]) for a, b in zip(*picks)]
        out[f"set.{name}.kid"] = numpy.array([numpy.mean(values), numpy.std(values)])
        few = min(len(x), len(y))
        out[f"set.{name}.kid.all"] = kernel_distance(x[:few], y[:few])
    centred = real.astype(float) - real.astype(float).mean(0)
    out["spectrum"] = scipy.linalg.svdvals(centred) / math.sqrt(len(real) - 1)


def scores(logits):
    p = scipy.special.softmax(logits.astype(float), axis=1)
    for splits in (1, 7, 10):
        values = []
        for s in range(splits):
            part = p[s * len(p) // splits:(s + 1) * len(p) // splits]
            values.append(math.exp(numpy.mean([scipy.stats.entropy(row, part.mean(0)) for row in part])))
        out[f"score.{splits}"] = numpy.array([numpy.mean(values), numpy.std(values)])


# --- pictures


def images():
    for name, shape in (("colour", (5, 16, 16, 3)), ("grey", (3, 28, 28, 1)), ("smallest", (2, 7, 9, 3))):
        base = numpy.cumsum(numpy.cumsum(random.normal(size=shape), axis=1), axis=2)
        a = numpy.round(127.5 * numpy.tanh(base / 8) + 127.5)
        b = numpy.clip(numpy.round(4 * (a + random.normal(size=shape) * 20)) / 4, 0, 255)  # quarters: also what no saved picture has
        x, y = a / 127.5 - 1, b / 127.5 - 1
        each = [structural_similarity(p, q, channel_axis=-1, data_range=255) for p, q in zip(a, b)]
        unit = [structural_similarity((p + 1) / 2, (q + 1) / 2, channel_axis=-1, data_range=1) for p, q in zip(x, y)]
        assert abs(numpy.mean(each) - numpy.mean(unit)) < 1e-12
        out[f"picture.{name}.a"], out[f"picture.{name}.b"] = x.astype("f4"), y.astype("f4")
        # judged is what is stored, so again of that
        x, y = x.astype("f4").astype(float), y.astype("f4").astype(float)
        out[f"picture.{name}.ssim"] = numpy.mean([structural_similarity((p + 1) / 2, (q + 1) / 2, channel_axis=-1, data_range=1)
                                                  for p, q in zip(x, y)])
        out[f"picture.{name}.psnr"] = peak_signal_noise_ratio(x, y, data_range=2)


def bias():
    variances, n, m = 1 / numpy.arange(1, 31.0), 90, 60
    distances = [by_data(*(random.normal(size=(count, 30)) * numpy.sqrt(variances) for count in (n, m))) for _ in range(200)]
    out["bias.variances"], out["bias.counts"], out["bias.simulated"] = variances, numpy.array([n, m]), numpy.mean(distances)


def references():
    features = random.normal(size=(50, 8)).astype("f4") + 2
    spatial = random.normal(size=(50, 6)).astype("f4")
    mu, sigma = features.mean(0), numpy.cov(features, rowvar=False)
    # ADM: means in float32, as the mean of float32 features is; covariances in float64
    numpy.savez(os.path.join(OUT, "adm.npz"), arr_0=random.integers(0, 256, (3, 5, 5, 3), dtype="u1"), mu=mu, sigma=sigma,
                mu_s=spatial.mean(0), sigma_s=numpy.cov(spatial, rowvar=False))
    numpy.savez_compressed(os.path.join(OUT, "pytorch-fid.npz"), mu=features.astype(float).mean(0), sigma=sigma)


def main():
    given = numpy.load(os.path.join(OUT, "features.npz"))
    gaussians()
    sets(given["real"], given["fake"])
    scores(given["logits"])
    images()
    bias()
    references()
    numpy.savez_compressed(os.path.join(OUT, "numerics.npz"), **{name: numpy.asarray(value) for name, value in out.items()})
    for name, value in out.items():
        if numpy.size(value) <= 2:
            print(name, *numpy.ravel(value))


main()
