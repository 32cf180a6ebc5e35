/** The agent's systemd units, as `cni install` puts them in place and removes them. */

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { defaultSocket } from '../../agent/agent.ts';
import { makeDirectory } from '../../lib/directory.ts';
import { tryAcquireLock } from '../../lib/kernel/lock.ts';
import { CommandError } from '../errors.ts';
import { print } from '../terminal.ts';
import { ownPrivateDirectory } from './private-directory.ts';

/** Where the administrator's units are. Source: systemd.unit(5). */
const unitDirectory = '/etc/systemd/system';
/** Exists where systemd is the init. Source: sd_booted(3). */
const bootedDirectory = '/run/systemd/system';
const [socketUnit, serviceUnit] = ['cni-agent.socket', 'cni-agent.service'] as const;
const units = [socketUnit, serviceUnit];
/** The text that our units begin with. */
const mark = '# Part of cni-plugins-ts.';
/** How long systemctl may take, in milliseconds: the agent ends its calls first, see TimeoutStopSec. */
const patienceMs = 120_000;

/**
 * Checks that the units can be installed, before anything is changed.
 * @param binDir absolute path of the directory that the plugins go to.
 * @throws CommandError that says what is in the way.
 */
export function checkUnits(binDir: string): void {
  const refuse = (message: string) => {
    throw new CommandError(`${message}. Nothing was changed`);
  };
  if (!existsSync(bootedDirectory))
    refuse(
      `systemd is not the init of this host: there is no "${bootedDirectory}". Install without --agent, ` +
        `and have this host's own supervisor run "${join(binDir, 'cni')} agent"`,
    );
  if (/[^\w./@:+,=-]/.test(binDir))
    refuse(`A unit cannot name "${binDir}". With --agent, give a --bin-dir without special characters`);
  for (const unit of units) {
    const text = readUnit(unit);
    if (text !== undefined && !text.startsWith(mark))
      refuse(`"${join(unitDirectory, unit)}" is not of this suite. Remove or rename it`);
  }
  if (isServedByHand()) refuse(`An agent that systemd did not start listens on "${defaultSocket}". Stop it`);
  systemctl('--version');
}

/**
 * Writes the units, enables and starts the socket.
 * @param binDir where the plugins were installed to.
 * @throws CommandError; then the units are as before.
 */
export function installUnits(binDir: string): void {
  const previous = new Map(units.map((unit) => [unit, readUnit(unit)]));
  try {
    for (const unit of units) {
      const text = readFileSync(join(ownPrivateDirectory(), 'systemd', unit), 'utf8');
      writeUnit(unit, text.replaceAll('/opt/cni/bin/', `${binDir}/`));
    }
    systemctl('daemon-reload');
    systemctl('enable', '--now', socketUnit);
    // An agent that is already running is of the previous build: it finishes its calls.
    systemctl('--no-block', 'try-restart', serviceUnit);
  } catch (cause) {
    // Undoes "enable" first: without the unit, systemctl would not find what to remove.
    if (previous.get(socketUnit) === undefined) attempt('disable', '--now', socketUnit);
    for (const [unit, text] of previous) {
      if (text === undefined) rmSync(join(unitDirectory, unit), { force: true });
      else writeUnit(unit, text);
    }
    attempt('daemon-reload');
    throw new CommandError('The plugins are installed and work, but the agent could not be set up', {
      cause,
    });
  }
  print(`The agent is set up: ${socketUnit} is enabled and started. "cni agent status" shows what it does.`);
}

/**
 * Stops, disables and removes the units, if they are ours.
 * @param binDir directory of the plugins; units that start an agent from another directory are left alone.
 */
export function removeUnits(binDir: string): void {
  const service = readUnit(serviceUnit);
  if (service !== undefined && !service.includes(`\nExecStart=${join(binDir, 'cni')} agent`)) return;
  const own = units.filter((unit) => readUnit(unit)?.startsWith(mark));
  if (own.length === 0) return;
  const isBooted = existsSync(bootedDirectory);
  if (isBooted) systemctl('disable', '--now', ...own);
  for (const unit of own) rmSync(join(unitDirectory, unit));
  // The link that "enable" made, where systemctl could not remove it.
  rmSync(join(unitDirectory, 'sockets.target.wants', socketUnit), { force: true });
  if (isBooted) systemctl('daemon-reload');
  print(`Units removed: ${own.join(', ')}.`);
}

function readUnit(unit: string): string | undefined {
  const path = join(unitDirectory, unit);
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

function writeUnit(unit: string, text: string): void {
  makeDirectory(unitDirectory, 0o755);
  const path = join(unitDirectory, unit);
  rmSync(`${path}.new`, { force: true });
  writeFileSync(`${path}.new`, text, { mode: 0o644, flag: 'wx' });
  renameSync(`${path}.new`, path);
}

/**
 * True when an agent runs that made its socket itself: it holds the socket's lock, see lib/kernel/listen.ts.
 * @throws CniError when that cannot be told.
 */
function isServedByHand(): boolean {
  const lockFile = `${defaultSocket}.lock`;
  if (!existsSync(lockFile)) return false;
  using lock = tryAcquireLock(lockFile);
  return !lock;
}

/** Runs systemctl while a failure is undone: further errors are ignored, as the first one counts. */
function attempt(...args: string[]): void {
  try {
    systemctl(...args);
  } catch {}
}

function systemctl(...args: string[]): void {
  try {
    execFileSync('systemctl', args, { stdio: ['ignore', 'ignore', 'pipe'], timeout: patienceMs });
  } catch (error) {
    const { stderr, code } = error as { stderr?: Buffer; code?: string };
    const said = stderr?.toString().trim();
    throw new CommandError(
      code === 'ENOENT'
        ? '"systemctl" is not in PATH. Install systemd\'s programs, or install without --agent'
        : `"systemctl ${args.join(' ')}" failed${said ? `: ${said}` : ''}`,
    );
  }
}
