/**
 * The name server of a network: a dnsmasq that runs while the network has containers on this host. Its files
 * are read and written under a lock. Each time, the running process is brought in line with them, so that a
 * server that has crashed runs again with the next verb.
 */

import {
  closeSync,
  constants,
  existsSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CniError, ErrorCode } from '../../lib/errors.ts';
import { fileError, readRegularFile } from '../../lib/file.ts';
import { outermostLockMs } from '../../lib/firewall/xtables-lock.ts';
import { acquireLock } from '../../lib/kernel/lock.ts';
import { processStat } from '../../lib/kernel/process.ts';
import { ProgramMissingError, type Programs } from '../../lib/kernel/programs.ts';
import { readStateFile, removeUnfinished, writeStateFile } from '../../lib/state-file.ts';
import {
  formatConfig,
  formatHosts,
  parseConfig,
  parseHosts,
  type Records,
  type ServerSettings,
} from './records.ts';

/**
 * Where podman's dnsname keeps a directory for each network: the second where XDG_RUNTIME_DIR is set, as in a
 * login session of root. Agent and runtime may differ in their environment, so what exists decides.
 */
const parentDirectories = ['/run/containers/cni/dnsname', '/run/user/0/containers/cni/dnsname'] as const;
const lockFile = '/run/cni/dnsname.lock';
/** How long a server may take to end before it is killed, in milliseconds. */
const longestEnd = 2000;
/** Set while a process is exiting. Source: include/linux/sched.h. */
const PF_EXITING = 4;

/** The name server of one network. */
export class NameServer {
  /** That of the running server; else one that exists; else the first. */
  private readonly directory: string;
  private readonly programs: Programs;
  private readonly settings: ServerSettings;

  constructor(network: string, programs: Programs, settings: ServerSettings) {
    const all = parentDirectories.map((parent) => `${parent}/${network}`);
    this.directory =
      all.find((one) => processOf(one) !== undefined) ?? all.find((one) => existsSync(one)) ?? all[0]!;
    this.programs = programs;
    this.settings = settings;
  }

  /** Its current records. @throws CniError when the files cannot be read. */
  read(): Records {
    const hosts = readStateFile(this.hostsFile) ?? '';
    const config = readStateFile(this.configFile) ?? '';
    return { hosts: parseHosts(hosts), ...parseConfig(config) };
  }

  /**
   * Changes its records. The server is started with the first name and stopped with the last.
   * @param change is given the previous records, once the lock is held, and programs that hold it as well.
   * @throws CniError when the files cannot be written, or dnsmasq does not start.
   */
  async update(change: (before: Records, programs: Programs) => Records | Promise<Records>): Promise<void> {
    using lock = await acquireLock(lockFile, outermostLockMs);
    const before = this.read();
    const after = await change(before, this.programs.holding(lock));
    if (after.hosts.length === 0) return this.remove();
    removeUnfinished(this.directory);
    this.write(this.hostsFile, formatHosts(after.hosts));
    this.write(this.configFile, formatConfig(after, this.settings, this.directory));
    const pid = this.pid();
    if (pid !== undefined && !this.isOutdated()) {
      // On SIGHUP, it rereads the names, but not its configuration.
      process.kill(pid, 'SIGHUP');
      return;
    }
    await this.end();
    await this.start();
  }

  /** Its process ID; undefined when it does not run. */
  pid(): number | undefined {
    return processOf(this.directory);
  }

  private get hostsFile(): string {
    return `${this.directory}/addnhosts`;
  }

  private get configFile(): string {
    return configFileIn(this.directory);
  }

  private get pidFile(): string {
    return pidFileIn(this.directory);
  }

  private write(file: string, text: string): void {
    const before = readStateFile(file);
    if (before === text) return;
    try {
      writeStateFile(file, text);
    } catch (error) {
      // A full disk must keep no pod from going: what is no longer than before needs no space.
      if (before === undefined || Buffer.byteLength(text) > Buffer.byteLength(before)) throw error;
      overwrite(file, text);
    }
  }

  /** Whether the configuration is newer than the process, which writes its PID file after reading it. */
  private isOutdated(): boolean {
    const [config, process] = [this.configFile, this.pidFile].map((file) =>
      statSync(file, { bigint: true, throwIfNoEntry: false }),
    );
    return !config || !process || config.mtimeNs >= process.mtimeNs;
  }

  private async start(): Promise<void> {
    const argv = ['dnsmasq', '-u', 'root', `--conf-file=${this.configFile}`];
    const [program, ...args] = isServiceOfSystemd() ? [...serviceOf(this.pidFile), ...argv] : argv;
    let failure: string;
    try {
      // As a server, it must not inherit locks.
      const { status, stderr } = await this.programs.run(program!, args, { inherit: [] });
      if (status === 0 && this.pid() !== undefined) return;
      failure = stderr.trim() || `It ended with ${status}`;
    } catch (error) {
      if (error instanceof ProgramMissingError) throw missing();
      throw error;
    }
    throw new CniError(
      ErrorCode.Internal,
      `dnsmasq does not start, so that containers could look up no names. If another name server of this host has the address and port 53, keep it to its own addresses, as "bind-interfaces" does; its configuration is "${this.configFile}"`,
      failure,
    );
  }

  /** Ends the process, and waits until the kernel has closed its sockets: until then, no other can listen. */
  private async end(): Promise<void> {
    const pid = pidIn(this.directory);
    if (pid === undefined) return;
    const begin = performance.now();
    for (let signal: NodeJS.Signals | 0 = 'SIGTERM'; ; signal = 0) {
      const isLate = performance.now() > begin + longestEnd;
      if (isServing(pid, this.directory)) kill(pid, isLate ? 'SIGKILL' : signal);
      else if (!isExiting(pid)) return;
      // It cannot be killed; its successor will report that the port is taken.
      if (performance.now() > begin + 2 * longestEnd) return;
      await sleep(2);
    }
  }

  private async remove(): Promise<void> {
    await this.end();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Replaces the content of a regular file in place. @throws CniError that names the file. */
function overwrite(file: string, text: string): void {
  try {
    const fd = openSync(file, constants.O_WRONLY | constants.O_NOFOLLOW);
    try {
      writeFileSync(fd, text);
      ftruncateSync(fd, Buffer.byteLength(text));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw fileError('write', file, error);
  }
}

const configFileIn = (directory: string): string => `${directory}/dnsmasq.conf`;
const pidFileIn = (directory: string): string => `${directory}/pidfile`;

/** The process that serves from a directory; undefined when none does. */
function processOf(directory: string): number | undefined {
  const pid = pidIn(directory);
  return pid !== undefined && isServing(pid, directory) ? pid : undefined;
}

/** The process ID that dnsmasq wrote, of a process that may have ended; undefined when there is none. */
function pidIn(directory: string): number | undefined {
  try {
    return Number(readRegularFile(pidFileIn(directory))) || undefined;
  } catch {
    return undefined;
  }
}

/** Whether a process is the server of a directory, and not another one that reuses its ID. */
function isServing(pid: number, directory: string): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
    return words.includes(`--conf-file=${configFileIn(directory)}`);
  } catch {
    return false;
  }
}

/** Whether a process is exiting, and may still hold its sockets. */
function isExiting(pid: number): boolean {
  const [state, , , , , , flags] = processStat(pid);
  return state !== 'Z' && state !== 'X' && (Number(flags) & PF_EXITING) !== 0;
}

function kill(pid: number, signal: NodeJS.Signals | 0): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended by itself.
  }
}

/** @throws CniError when dnsmasq is not installed. */
export function requireDnsmasq(programs: Programs): void {
  try {
    programs.find('dnsmasq');
  } catch (error) {
    if (error instanceof ProgramMissingError) throw missing();
    throw error;
  }
}

function missing(): CniError {
  return new CniError(
    ErrorCode.Internal,
    'dnsmasq is not installed, which answers look-ups of names. Install it; on Debian it is in the package "dnsmasq-base"',
  );
}

/**
 * Whether systemd can run dnsmasq: a service of its own outlives the one that this process is part of, and
 * has all the privileges that it needs. Not where this process has another network namespace than systemd.
 */
function isServiceOfSystemd(): boolean {
  if (!existsSync('/run/systemd/system')) return false;
  try {
    return readlinkSync('/proc/self/ns/net') === readlinkSync('/proc/1/ns/net');
  } catch {
    // Nor may a process use systemd that may not even look at it, such as one of a rootless container engine.
    return false;
  }
}

function serviceOf(pidFile: string): string[] {
  const properties = [
    'Type=forking',
    `PIDFile=${pidFile}`,
    'Restart=on-failure',
    'Description=CNI name server',
  ];
  return ['systemd-run', '--quiet', '--collect', ...properties.map((one) => `--property=${one}`), '--'];
}
