/**
 * Faults injected into a running plugin from outside, by strace(1): at one system call of its main thread it
 * is killed, or the call fails. The executable is the shipped one, started as the launcher does; it has no
 * hooks for this.
 */

import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { privatePrefix } from '../../launcher/launch.ts';
import { binDir, type Host, randomName } from '../support/host.ts';
import { onOneProcessor } from '../support/one-processor.ts';
import { cleanEnv, type Output } from '../support/run.ts';

/** One system call of a verb, at which it can be killed or failed. */
export interface Point {
  readonly call: string;
  /** Which of the main thread's calls of that name, from 1 on. */
  readonly nth: number;
  /** Only calls that concern this path count. */
  readonly path?: string;
  /** The call as strace shows it. */
  readonly text: string;
  /** Whether a child of the plugin is running then. */
  readonly hasChild: boolean;
}

/** What identifies a point. */
type Place = Pick<Point, 'call' | 'nth' | 'path'>;

/** One start of a plugin. */
export interface Start {
  readonly type: string;
  readonly env: NodeJS.ProcessEnv;
  readonly stdin: string;
}

/** The calls that change something, wait for something, or open what the plugin works with. */
const watched = [
  ...['sendto', 'sendmsg', 'recvfrom', 'recvmsg', 'socket', 'bind', 'setns', 'unshare', 'ioctl', 'flock'],
  ...[
    'openat',
    'write',
    'pwrite64',
    'rename',
    'renameat',
    'renameat2',
    'unlink',
    'unlinkat',
    'rmdir',
    'link',
    'linkat',
  ],
  ...['mkdir', 'mkdirat', 'fchmod', 'fsync', 'fdatasync', 'ftruncate', 'utimensat', 'memfd_create', 'pipe2'],
  ...['clone', 'clone3', 'vfork', 'execve', 'wait4'],
];

/** The start of a child process, as opposed to a thread. */
const startsChild = /^(?:clone3?\(.*CLONE_VFORK|vfork\()/;

/** The longest that a plugin may run, in milliseconds: it waits for a lock for up to 110 seconds. */
const longestRun = 180_000;

/** Lists the points of a verb, from the first one after the configuration was read, by running it. */
export async function findPoints(host: Host, start: Start): Promise<{ points: Point[]; output: Output }> {
  const { output, log } = await traced(host, start, ['-e', `trace=read,${watched.join(',')}`]);
  const counts = new Map<string, number>();
  const points: Point[] = [];
  let hasInput = false;
  let children = 0;
  for (const text of log.split('\n')) {
    const call = /^(\w+)\(/.exec(text)?.[1];
    if (!call) continue;
    const nth = (counts.get(call) ?? 0) + 1;
    counts.set(call, nth);
    if (/^read\(0<.*= 0$/.test(text)) hasInput = true;
    if (!hasInput || call === 'read' || !isRelevant(text)) continue;
    points.push({ call, nth, text, hasChild: children > 0 });
    if (startsChild.test(text)) children++;
    if (call === 'wait4') children--;
  }
  return { points, output };
}

/** How an injected run ended. */
export interface Injected extends Output {
  /** Whether the call with the fault was reached. */
  readonly isReached: boolean;
  /** Whether it had to be killed for taking too long. */
  readonly isLate: boolean;
  /** Whether it is writing the answer that failed. */
  readonly isUnheard?: boolean;
  readonly verb: string | undefined;
  /** The call that failed, as strace shows it. */
  readonly failed?: string | undefined;
}

/**
 * Runs a verb that is killed at a point.
 * @param children what becomes of its child processes: they are killed as well, or end by themselves.
 */
export async function kill(
  host: Host,
  start: Start,
  point: Place,
  children: 'killed' | 'left',
): Promise<Injected> {
  const { output, isLate } = await traced(host, start, injecting('signal=KILL', point), children);
  return { ...output, isLate, isReached: output.exit === 'SIGKILL', verb: start.env.CNI_COMMAND };
}

/** Runs a verb in which one system call fails. @param error such as "EPERM". */
export async function fail(host: Host, start: Start, point: Place, error: string): Promise<Injected> {
  const { output, log, isLate } = await traced(host, start, injecting(`error=${error}`, point));
  const injected = log.split('\n').find((line) => line.includes('(INJECTED)'));
  const isReached = injected !== undefined && isRelevant(injected);
  const isUnheard = /^write\(1</.test(injected ?? '');
  return { ...output, isLate, isReached, isUnheard, verb: start.env.CNI_COMMAND, failed: injected };
}

/** Options of strace(1) that inject a fault at a point. */
function injecting(fault: string, { call, nth, path }: Place): string[] {
  const concerned = path === undefined ? [] : ['-P', path];
  return [...concerned, '-e', `trace=${call}`, '-e', `inject=${call}:${fault}:when=${nth}`];
}

/** False for calls that only synchronise threads, and for files that Node.js reads for itself. */
function isRelevant(text: string): boolean {
  if (/^clone3?\(/.test(text)) return startsChild.test(text);
  // Node.js wakes its threads through an eventfd.
  if (/^write\(\d+<anon_inode:\[eventfd\]>,/.test(text)) return false;
  return !/^openat\(AT_FDCWD<[^>]*>, "\/(?:sys\/fs\/cgroup|etc\/ssl)/.test(text);
}

async function traced(
  host: Host,
  { type, env, stdin }: Start,
  options: readonly string[],
  children: 'killed' | 'left' = 'left',
): Promise<{ output: Output; log: string; isLate: boolean }> {
  const log = `/run/strace-${randomName()}`;
  try {
    const argv = [
      ...host.enter,
      ...onOneProcessor(),
      'strace',
      '-qq',
      '-y',
      '-s',
      '64',
      '-o',
      log,
      ...options,
      ...executable(type),
    ];
    const { output, isLate } = await runGroup(argv, { ...cleanEnv, ...env }, stdin, children);
    return { output, log: readFileSync(host.file(log), 'utf8'), isLate };
  } finally {
    rmSync(host.file(log), { force: true });
  }
}

/** What the launcher starts when there is no agent. @param options for the loader. */
export function executable(type: string, options: readonly string[] = []): string[] {
  const directory = join(binDir, readdirSync(binDir).find((name) => name.startsWith(privatePrefix))!);
  const loader = join(directory, readdirSync(directory).find((name) => name.startsWith('ld-linux'))!);
  const program = join(directory, 'cni-plugins');
  return [
    ...[loader, ...options, '--library-path', directory, '--argv0', type],
    ...[program, '--', join(binDir, type)],
  ];
}

/** Runs a program in a process group of its own, so that what it leaves behind can be found. */
export async function runGroup(
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  stdin: string,
  children: 'killed' | 'left',
): Promise<{ output: Output; isLate: boolean }> {
  const child = spawn(argv[0]!, argv.slice(1), { env, detached: true });
  const chunks = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      chunks[name] += text;
    });
  child.stdin.on('error', () => {}).end(stdin);
  let isLate = false;
  const limit = setTimeout(() => {
    isLate = true;
    signalGroup(child.pid!, 'SIGKILL');
  }, longestRun);
  const closed = new Promise((resolve) => child.on('close', resolve));
  const exit = await new Promise<number | string>((resolve, reject) =>
    child.on('error', reject).on('exit', (code, signal) => resolve(code ?? String(signal))),
  );
  clearTimeout(limit);
  if (children === 'killed') signalGroup(child.pid!, 'SIGKILL');
  for (const end = Date.now() + longestRun; signalGroup(child.pid!, 0); await sleep(1))
    if (Date.now() > end) signalGroup(child.pid!, 'SIGKILL');
  // Its output may still be on its way.
  await closed;
  return { output: { argv, exit, ...chunks }, isLate };
}

/** @returns false when the group has no process any more. */
function signalGroup(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-group, signal);
    return true;
  } catch {
    return false;
  }
}
