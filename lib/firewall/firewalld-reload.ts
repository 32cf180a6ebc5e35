/**
 * Listening for reloads and restarts of firewalld, which remove the rules of others.
 * Source: firewalld.dbus(5), dbus-monitor(1).
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Programs } from '../kernel/programs.ts';
import { service } from './firewalld.ts';

/** Pause before the bus is tried again, in milliseconds. */
const pauseMs = 10_000;

/** What is listened for. The bus checks the sender. */
const rules = [
  `type='signal',sender='${service}',interface='${service}',member='Reloaded'`,
  `type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='${service}'`,
];

/**
 * Listens for as long as the process lives, whether or not the system bus is there.
 * @param onReload is told of each reload, start and stop of firewalld, and of the return of the bus, as one
 *   may have been missed.
 * @param onLoss is told once when the bus is out of reach.
 * @returns what ends the listening when it is disposed of.
 * @throws ProgramMissingError when dbus-monitor is not installed.
 */
export function onFirewalldReload(
  programs: Programs,
  onReload: () => void,
  onLoss: (why: string) => void,
): Disposable {
  const file = programs.find('dbus-monitor');
  let isClosed = false;
  let isLost = false;
  let child: ChildProcess | undefined;
  let timer: NodeJS.Timeout | undefined;
  const listen = () => {
    child = spawn(file, ['--system', '--profile', ...rules], { stdio: ['ignore', 'pipe', 'ignore'] });
    child.once('error', () => {}).once('close', again);
    // Without a descriptor left, there is no stream.
    if (!child.stdout) return;
    createInterface({ input: child.stdout }).on('line', (line) => {
      // The first line is a heading, which tells that the bus is there.
      if (isLost || /\t(?:Reloaded|NameOwnerChanged)$/.test(line)) onReload();
      isLost = false;
    });
  };
  const again = () => {
    if (isClosed) return;
    if (!isLost) onLoss('The system bus is out of reach, so that reloads of firewalld are not noticed');
    isLost = true;
    timer = setTimeout(listen, pauseMs);
  };
  listen();
  return {
    [Symbol.dispose]() {
      isClosed = true;
      clearTimeout(timer);
      child?.kill();
    },
  };
}
