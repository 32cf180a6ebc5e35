/** firewalld, over D-Bus: a container's addresses are sources of a zone. Source: firewalld.dbus(5). */

import { existsSync } from 'node:fs';
import type { Prefix } from '../ip.ts';
import { ProgramMissingError, type Programs } from '../kernel/programs.ts';

/** Where D-Bus puts the system bus. */
const busSocket = '/run/dbus/system_bus_socket';
const service = 'org.fedoraproject.FirewallD1';
const path = '/org/fedoraproject/FirewallD1';
const zoneInterface = 'org.fedoraproject.FirewallD1.zone';

/** True when firewalld is on the system bus. */
export async function isFirewalldRunning(programs: Programs): Promise<boolean> {
  // Most nodes have no system bus, or nothing on it: that costs no child.
  if (!programs.environment.DBUS_SYSTEM_BUS_ADDRESS && !existsSync(busSocket)) return false;
  const answer = await send(
    programs,
    'org.freedesktop.DBus',
    '/org/freedesktop/DBus',
    'org.freedesktop.DBus.NameHasOwner',
    [service],
  );
  return answer.ok && /boolean true/.test(answer.text);
}

/** A zone of firewalld. */
export class Zone {
  private readonly programs: Programs;
  private readonly name: string;

  constructor(programs: Programs, name: string) {
    this.programs = programs;
    this.name = name;
  }

  /** Makes addresses sources of the zone. One that is already is no error. @throws Error with what firewalld said. */
  async add(prefixes: readonly Prefix[]): Promise<void> {
    for (const source of sourcesOf(prefixes))
      await this.call('addSource', source, /ZONE_ALREADY_SET|ALREADY_ENABLED/);
  }

  /** Takes addresses out of the zone. One that is not in it, and a firewalld that is not there, are no error. */
  async remove(prefixes: readonly Prefix[]): Promise<void> {
    for (const source of sourcesOf(prefixes))
      await this.call(
        'removeSource',
        source,
        /UNKNOWN_SOURCE|NOT_ENABLED|ZONE_CONFLICT|ServiceUnknown|Failed to open connection/,
      );
  }

  /** @throws Error when an address is not a source of the zone. */
  async check(prefixes: readonly Prefix[]): Promise<void> {
    for (const source of sourcesOf(prefixes)) {
      const answer = await this.call('querySource', source);
      if (!/boolean true/.test(answer))
        throw new Error(
          `firewalld has no source "${source}" in zone "${this.name}". Delete the container and add it again`,
        );
    }
  }

  private async call(method: string, source: string, harmless?: RegExp): Promise<string> {
    const { ok, text } = await send(this.programs, service, path, `${zoneInterface}.${method}`, [
      this.name,
      source,
    ]);
    if (ok || harmless?.test(text)) return text;
    throw new Error(
      `firewalld refuses ${method} of "${source}" in zone "${this.name}": ${text.split('\n')[0]}`,
    );
  }
}

function sourcesOf(prefixes: readonly Prefix[]): string[] {
  return prefixes.map(({ address }) => `${address.toPrefix()}`);
}

/** Calls a method on the system bus. dbus-send comes with the bus itself. */
async function send(
  programs: Programs,
  destination: string,
  object: string,
  method: string,
  args: readonly string[],
): Promise<{ ok: boolean; text: string }> {
  const words = [
    '--system',
    '--print-reply',
    `--dest=${destination}`,
    object,
    method,
    ...args.map((arg) => `string:${arg}`),
  ];
  try {
    const { status, stdout, stderr } = await programs.run('dbus-send', words);
    return { ok: status === 0, text: (stdout + stderr).trim() };
  } catch (error) {
    if (!(error instanceof ProgramMissingError)) throw error;
    return { ok: false, text: `Failed to open connection: ${error.message}` };
  }
}
