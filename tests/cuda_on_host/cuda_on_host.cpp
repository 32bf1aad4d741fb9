// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/cuda_on_host.cpp: the switch between fibers (x86-64, System V), and a block's shared memory
#if !defined(__x86_64__)
#error "spectral: tests/cuda_on_host is written for x86-64"
#endif
namespace spectral::cuda::detail {
extern thread_local __attribute__((aligned(16))) unsigned char shared_bytes[227 * 1024];
thread_local __attribute__((aligned(16))) unsigned char shared_bytes[227 * 1024];
}  // namespace spectral::cuda::detail

// keeps what a function must preserve on the stack of `from`, and goes on where `to` left off
asm(R"(
.text
.globl cuda_on_host_switch
.type cuda_on_host_switch, @function
cuda_on_host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_on_host_switch, .-cuda_on_host_switch
.section .note.GNU-stack,"",@progbits
)");
