/**
 * The suite's client of the Kubernetes API as a program, to be run on a host of a test: it reads calls from
 * standard input, as {"kubeconfig", "timeoutMs", "calls": [[method, ...arguments]]}, and prints what each gave.
 */

import { text } from 'node:stream/consumers';
import { KubernetesClient } from '../../lib/kubernetes/client.ts';
import { KubernetesError } from '../../lib/kubernetes/error.ts';
import { readKubeconfig } from '../../lib/kubernetes/kubeconfig.ts';

type Method = (...args: unknown[]) => Promise<unknown>;

const { kubeconfig, timeoutMs, calls } = JSON.parse(await text(process.stdin)) as {
  kubeconfig: string;
  timeoutMs?: number;
  calls: [string, ...unknown[]][];
};
const answers: unknown[] = [];
try {
  using client = new KubernetesClient(readKubeconfig(kubeconfig), { ...(timeoutMs && { timeoutMs }) });
  const methods = client as unknown as Record<string, Method>;
  for (const [method, ...args] of calls)
    answers.push(await attempt(() => methods[method]!.apply(client, args)));
} catch (error) {
  answers.push(problemOf(error));
}
console.log(JSON.stringify(answers));

async function attempt(step: () => Promise<unknown>): Promise<unknown> {
  try {
    return { value: await step() };
  } catch (error) {
    return problemOf(error);
  }
}

function problemOf(error: unknown): object {
  const { name, code, message, details } = error as Error & { code?: number; details?: string };
  const { failure, status, reason } = error instanceof KubernetesError ? error : {};
  return { name, code, message, details, failure, status, reason };
}
