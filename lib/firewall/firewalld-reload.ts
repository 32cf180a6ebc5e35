/**
 * Listening for reloads and restarts of firewalld, which take rules of others away. Source: firewalld.dbus(5),
 * dbus-monitor(1).
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Programs } from '../kernel/programs.ts';
import { service } from './firewalld.ts';

/** Before the bus is tried again, in milliseconds. */
const pauseMs = 10_000;

/** What is listened for. The bus checks the sender. */
const rules = [
  `type='signal',sender='${service}',interface='${service}',member='Reloaded'`,
  `type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='${service}'`,
];

/**
 * Tells of each reload, start and stop of firewalld, for as long as the system bus is there, and again when it
 * is back.
 * @param onMissed is told that some may have been missed, as nobody has listened for a while.
 * @returns ends the listening.
 * @throws ProgramMissingError when dbus-monitor is not installed.
 */
export function onFirewalldReload(
  programs: Programs,
  onReload: () => void,
  onMissed: (why: string) => void,
): Disposable {
  const file = programs.find('dbus-monitor');
  let isClosed = false;
  let child: ChildProcess | undefined;
  let timer: NodeJS.Timeout | undefined;
  const listen = () => {
    child = spawn(file, ['--system', '--profile', ...rules], { stdio: ['ignore', 'pipe', 'ignore'] });
    createInterface({ input: child.stdout! }).on('line', (line) => {
      if (/\t(?:Reloaded|NameOwnerChanged)$/.test(line)) onReload();
    });
    child.once('error', () => {}).once('close', again);
  };
  const again = () => {
    if (isClosed) return;
    onMissed('The system bus is out of reach: reloads of firewalld are not noticed');
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
