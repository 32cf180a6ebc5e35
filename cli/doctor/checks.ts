/** Every check, from the configuration of the host to the state of its pods. */

import { agentState } from './agent.ts';
import { attachments } from './attachments.ts';
import { bridgeNetfilter } from './bridge-netfilter.ts';
import type { Check, Finding } from './check.ts';
import { configuration, kernel } from './configuration.ts';
import { conntrack } from './conntrack.ts';
import type { Context } from './context.ts';
import { forwardPolicy } from './forward-policy.ts';
import { forwarding } from './forwarding.ts';
import { leftovers } from './leftovers.ts';
import { mtu } from './mtu.ts';
import { plugins } from './plugins.ts';
import { ranges } from './ranges.ts';
import { records } from './records.ts';
import { reversePath, routes } from './routes.ts';

const checks: readonly Check[] = [
  configuration,
  plugins,
  kernel,
  agentState,
  forwarding,
  reversePath,
  bridgeNetfilter,
  forwardPolicy,
  leftovers,
  conntrack,
  ranges,
  records,
  attachments,
  routes,
  mtu,
];

/** A check that was done, or could not be. */
export interface CheckResult {
  readonly id: string;
  readonly title: string;
  readonly findings: readonly Finding[];
  /** What was looked at; "" when it could not be. */
  readonly seen: string;
}

/** Runs every check, one after the other. Nothing is changed. */
export async function runChecks(context: Context): Promise<CheckResult[]> {
  const results: CheckResult[] = [];
  const told = new Set<unknown>();
  for (const { id, title, run } of checks) {
    try {
      results.push({ id, title, ...(await run(context)) });
    } catch (error) {
      const message = `This could not be looked at: ${(error as Error).message}`;
      const severity = told.has(error) ? 'info' : 'error';
      told.add(error);
      const cause = 'A program or the kernel refused to tell';
      const fix = 'Fix what the message names, and look again';
      results.push({
        id,
        title,
        seen: '',
        findings: [{ severity, subject: title, message, cause, fix }],
      });
    }
  }
  return results;
}
