"""How long `import tidegauge` takes: python benchmarks/bench_import.py.

Best of several fresh interpreters, less the best of as many that import nothing of ours.
"""

from __future__ import annotations

import subprocess
import sys
import time

RUNS = 9


def seconds(code: str) -> float:
    """Wall time of the fastest of several interpreters that run this code."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    nothing = seconds("pass")
    dependencies = seconds("import numpy, pyarrow") - nothing
    everything = seconds("import tidegauge") - nothing
    print(f"numpy and pyarrow  {dependencies * 1e3:6.0f} ms")
    print(f"import tidegauge   {everything * 1e3:6.0f} ms   (goal: below 200)")
