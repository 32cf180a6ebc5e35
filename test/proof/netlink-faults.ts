/**
 * Faults in the kernel's answers by netlink. The executable is the shipped one, started as the launcher
 * does, with netlink-faults.c between it and the C library: a request is refused while the others of its
 * datagram are carried out, or a dump is interrupted or breaks off.
 */

import { execFileSync } from 'node:child_process';
import { readFileSync, renameSync, rmSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { type Host, randomName } from '../support/host.ts';
import { cleanEnv, type Output } from '../support/run.ts';
import { executable, type Injected, runGroup, type Start } from './injection.ts';

const root = join(import.meta.dirname, '../..');

/** A request of a verb that can have a fault. */
export interface RequestPoint {
  /** Whether it changes something, is a batch of such requests, or lists something. */
  readonly kind: 'change' | 'batch' | 'dump';
  readonly protocol: number;
  readonly type: number;
  readonly flags: number;
  /** Of the request; of a batch, of its first message. */
  readonly length: number;
  /** Which of the requests of that protocol and type, and of that kind, from 1 on. */
  readonly nth: number;
}

/** The fault of a request. */
export interface NetlinkFault {
  readonly effect: 'refuse' | 'interrupt' | 'break';
  /** How many consecutive requests of that type have it. */
  readonly times: number;
  /** Such as "EBUSY"; none for an interruption. */
  readonly error?: string;
}

/** Errors that Node.js does not know. */
const otherErrors: Readonly<Record<string, number>> = { ERESTART: 85 };

/** Lists the requests of a verb, by running it. */
export async function findRequests(
  host: Host,
  start: Start,
): Promise<{ points: RequestPoint[]; output: Output }> {
  const { output, log } = await observed(host, start);
  const counts = new Map<string, number>();
  const points = log.map((line) => {
    const [kind, ...numbers] = line.split(' ') as [RequestPoint['kind'], ...string[]];
    const [protocol, type, flags, length] = numbers.map(Number) as [number, number, number, number];
    const key = `${protocol} ${type}`;
    const nth = (counts.get(key) ?? 0) + 1;
    counts.set(key, nth);
    return { kind, protocol, type, flags, length, nth };
  });
  return { points, output };
}

/** Runs a verb in which a request has a fault. */
export async function disturb(
  host: Host,
  start: Start,
  { protocol, type, nth }: RequestPoint,
  { effect, times, error }: NetlinkFault,
): Promise<Injected> {
  const errno = error === undefined ? 0 : (otherErrors[error] ?? constants.errno[error as 'EPERM']);
  const fault = [effect, protocol, type, nth, times, errno].join(' ');
  const { output, log, isLate } = await observed(host, start, { NETLINK_FAULT: fault });
  const isReached = log.some((line) => line.startsWith('met '));
  return { ...output, isLate, isReached, verb: start.env.CNI_COMMAND };
}

async function observed(host: Host, { type, env, stdin }: Start, variables: NodeJS.ProcessEnv = {}) {
  const log = `/run/netlink-${randomName()}`;
  try {
    const argv = [...host.enter, ...executable(type, ['--preload', library()])];
    const whole = { ...cleanEnv, ...env, ...variables, NETLINK_LOG: log };
    const { output, isLate } = await runGroup(argv, whole, stdin, 'left');
    const lines = readFileSync(host.file(log), 'utf8').split('\n').filter(Boolean);
    return { output, isLate, log: lines };
  } finally {
    rmSync(host.file(log), { force: true });
  }
}

let compiled: string | undefined;

/** Compiles netlink-faults.c, once in a process. @returns the path of the library. */
function library(): string {
  if (compiled) return compiled;
  const path = join(root, 'build/netlink-faults.so');
  const mine = `${path}.${randomName()}`;
  const flags = ['-std=c11', '-O1', '-shared', '-fPIC', '-Wall', '-Wextra', '-Werror'];
  execFileSync('gcc', [...flags, '-o', mine, join(import.meta.dirname, 'netlink-faults.c')]);
  renameSync(mine, path);
  compiled = path;
  return path;
}
