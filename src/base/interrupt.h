/*
** interrupt.h -- Ctrl-C for long kernels. The host's signal handler sets the flag; a kernel that may run for
** seconds polls it at its outer loop and returns early, and its binding then calls tensor_check_interrupt.
** Between kernels the host's Lua hook does the same without any help.
*/
#ifndef FERAL_INTERRUPT_H
#define FERAL_INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

extern volatile sig_atomic_t interrupt_flag;

static inline bool interrupted(void) {
  return interrupt_flag != 0;
}

#endif
