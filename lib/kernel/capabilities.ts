/** What the kernel lets this process do. Source: capabilities(7), proc_pid_status(5). */

import { readFileSync } from 'node:fs';

/** The capabilities that this suite needs (docs/privileges.md), with their numbers in linux/capability.h. */
const used = {
  CAP_DAC_OVERRIDE: 1,
  CAP_SETGID: 6,
  CAP_NET_BIND_SERVICE: 10,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_ADMIN: 21,
} as const;

/** Those of {@link used} that this process lacks; none if that cannot be determined. */
export function missingCapabilities(): string[] {
  let status: string;
  try {
    status = readFileSync('/proc/thread-self/status', 'latin1');
  } catch {
    return [];
  }
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? 'ffffffffffffffff'}`);
  return Object.entries(used).flatMap(([name, bit]) => ((effective >> BigInt(bit)) & 1n ? [] : [name]));
}

/** A message with the capabilities that the process lacks, if any. */
export function withMissing(message: string, missing: readonly string[]): string {
  if (missing.length === 0) return message;
  return `${message}. This process lacks ${missing.join(', ')}: see docs/privileges.md for what it needs`;
}
