"""Writes tests/data/quant/gptq_64.txt: GPTQ (Frantar et al. 2022) on a 64 x 64 problem, in double.

A plain transcription of the algorithm's formulas with NumPy: the explicit inverse, its upper
Cholesky factor, one column at a time. One scale a row a group of 16, found from the updated weights
at each group's first column; the last 16 columns are outliers, rounded to INT8 with one scale a row
after the body's error has reached them.
"""
import pathlib
import numpy as np

N, K, GROUP, OUTLIERS, CLIP, DAMP = 64, 64, 16, 16, 0.85, 0.01


def f16(x):
    return np.float16(x).astype(np.float64)


def main():
    rng = np.random.default_rng(7)
    mix = rng.normal(size=(K, K)) * 0.3 + np.eye(K)
    x = (rng.normal(size=(256, K)) @ mix).astype(np.float32)
    w = rng.normal(size=(N, K)).astype(np.float32)
    hessian = (x.astype(np.float64).T @ x.astype(np.float64)).astype(np.float32)

    h = hessian.astype(np.float64)
    h += np.eye(K) * DAMP * np.mean(np.diag(h))
    upper = np.linalg.cholesky(np.linalg.inv(h)).T  # inverse = upper^T upper
    work = w.astype(np.float64).copy()
    body = K - OUTLIERS
    codes = np.zeros((N, body), dtype=int)
    scales = np.zeros((N, body // GROUP))
    for k in range(body):
        if k % GROUP == 0:
            peak = np.abs(work[:, k:k + GROUP]).max(axis=1)
            scales[:, k // GROUP] = f16(peak * CLIP / 7.5)
        s = scales[:, k // GROUP]
        codes[:, k] = np.clip(np.rint(work[:, k] / s), -8, 7)
        miss = (work[:, k] - codes[:, k] * s) / upper[k, k]
        work[:, k + 1:] -= np.outer(miss, upper[k, k + 1:])
    outlier_scales = f16(np.abs(work[:, body:]).max(axis=1) / 127)
    outlier_codes = np.clip(np.rint(work[:, body:] / outlier_scales[:, None]), -127, 127).astype(int)

    out = pathlib.Path(__file__).parent.parent / "tests/data/quant/gptq_64.txt"
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w") as f:
        f.write(f"{N} {K} {GROUP} {OUTLIERS} {CLIP} {DAMP}\n")
        for name, array, form in [("weights", w, "%.9g"), ("hessian", hessian, "%.9g"),
                                  ("codes", codes, "%d"), ("scales", scales, "%.9g"),
                                  ("outlier_codes", outlier_codes, "%d"),
                                  ("outlier_scales", outlier_scales, "%.9g")]:
            f.write(name + "\n")
            np.savetxt(f, array.reshape(1, -1), fmt=form)


if __name__ == "__main__":
    main()
