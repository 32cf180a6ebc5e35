/* The agent's part in a call: see agent/protocol.ts for the protocol on its socket. */

#ifndef AGENT_H
#define AGENT_H

/*
 * Has the agent do a call. Returns the exit code, with everything printed, or -1 if the executable has to do
 * it: there is no agent, the agent does not take the call, or it went away before it had all of the input.
 * Standard input then has all of the input again.
 *
 * @param name of the plugin. @param self path of this program.
 */
int call_agent(const char *name, const char *self);

#endif
