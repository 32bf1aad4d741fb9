# SPDX-License-Identifier: Apache-2.0
# bench/peers/torch_attention.py: PyTorch's scaled_dot_product_attention on the shapes of bench/attention_cuda.cu, for comparison
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def median_ms(f, repeats):
    times = []
    for _ in range(repeats + 3):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        f()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b))
    return sorted(times[3:])[repeats // 2]


print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
for name, backend in (("default", None), ("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
    for d in (64, 128):
        for t in (256, 1024, 4096, 16384):
            shape = (16384 // t, 1024 // d, t, d)
            q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
            g = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
            call = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
            try:
                with sdpa_kernel(backend) if backend else torch.enable_grad():
                    with torch.no_grad():
                        forward = median_ms(call, 15)
                    out = call()
                    backward = median_ms(lambda: torch.autograd.grad(out, (q, k, v), g, retain_graph=True), 9)
            except RuntimeError as e:
                print(name, d, t, str(e).splitlines()[0][:80])
                continue
            flop = 4 * d * shape[0] * shape[1] * t * t / 2
            print(
                f"{name:8} D {d:3} T {t:5}: {forward:8.4f} {backward:8.4f} {forward + backward:8.4f} ms  "
                f"{flop / forward / 1e9:7.1f} {2.5 * flop / backward / 1e9:7.1f} {3.5 * flop / (forward + backward) / 1e9:7.1f} TFLOP/s"
            )
