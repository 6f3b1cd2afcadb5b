/*
** signals.h -- Ctrl-C and SIGTERM.
**
** Ctrl-C sets base/interrupt.h's flag and a hook on the Lua thread that runs now; the hook raises "interrupted!". The flag
** stays set until the top level (the prompt, or the program's end) has caught the error, and meanwhile pcall, coroutine.resume
** and their like hand every error on, so a loop around a pcall ends too. While an error closes <close> variables the hook is off.
**
** A further Ctrl-C of the same episode ends the process with 130: the second one, or at the prompt's the third.
**
** Module feral.core.signals, for long work that has something to save: see signals.c. It needs none of the above and is also
** in the loadable module.
*/
#ifndef FERAL_SIGNALS_H
#define FERAL_SIGNALS_H

#include <lua.h>
#include <stdbool.h>

/* Catches Ctrl-C from here on and puts in pcall and others that know of it; L is the main thread. */
void signals_start(lua_State *L);

/* Back to the default, for the time when the state is closed. */
void signals_stop(void);

/* For the top level, when a protected call has come back: was it interrupted? All is as before the first Ctrl-C then.
 */
bool signals_settle(lua_State *L);

/* True from here on: there is a prompt to go back to. */
void signals_set_interactive(bool is);

/* While true Ctrl-C does no more than set the flag and end the system call that waits for a key. */
void signals_set_reading(bool is);

int open_signals(lua_State *L);

#endif
