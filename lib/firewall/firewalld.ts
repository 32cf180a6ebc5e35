/** firewalld, over D-Bus: a container's addresses are sources of a zone. Source: firewalld.dbus(5). */

import { existsSync } from 'node:fs';
import { CniError, ErrorCode } from '../errors.ts';
import type { Address } from '../ip.ts';
import { ProgramMissingError, type Programs, ProgramTimeoutError } from '../kernel/programs.ts';
import { listBaseChains } from '../netlink/nftables/objects.ts';
import type { ForwardBackend } from './forward.ts';
import { withNftables } from './nftables.ts';

/** Where D-Bus puts the system bus. */
const busSocket = '/run/dbus/system_bus_socket';
export const service = 'org.fedoraproject.FirewallD1';
const path = '/org/fedoraproject/FirewallD1';
const zoneInterface = 'org.fedoraproject.FirewallD1.zone';

/** Exceptions of firewalld that say that a source is in the zone already, or that it is not in it. */
const alreadyThere = ['ZONE_ALREADY_SET', 'ALREADY_ENABLED'];
const notThere = ['UNKNOWN_SOURCE', 'NOT_ENABLED', 'ZONE_CONFLICT', 'INVALID_ZONE'];

/** What to do about other exceptions. */
const remedies: Record<string, string> = {
  INVALID_ZONE: 'Create the zone, or correct "firewalldZone"',
  ZONE_CONFLICT: 'Take the address out of the zone that it is in, or set "firewalldZone" to that',
};

const noReply = 'org.freedesktop.DBus.Error.NoReply';

/** Error names of D-Bus that say that the service does not run. */
const notRunning = [
  'org.freedesktop.DBus.Error.ServiceUnknown',
  'org.freedesktop.DBus.Error.NameHasNoOwner',
  noReply,
];

/** firewalld refused something, or is out of reach. */
export class FirewalldError extends CniError {
  override readonly name = 'FirewalldError';
}

/** True when firewalld is on the system bus. */
export async function isFirewalldRunning(programs: Programs): Promise<boolean> {
  return await (programs.once?.('firewalld', () => askForFirewalld(programs)) ?? askForFirewalld(programs));
}

async function askForFirewalld(programs: Programs): Promise<boolean> {
  // Most hosts have no system bus: finding that out takes no child process.
  if (!hasBus(programs)) return false;
  const answer = await send(
    programs,
    'org.freedesktop.DBus',
    '/org/freedesktop/DBus',
    'org.freedesktop.DBus.NameHasOwner',
    [service],
  );
  return answer.text !== undefined && /boolean true/.test(answer.text);
}

/**
 * Refuses to use another firewall where firewalld filters and only dbus-send is missing to talk to it: its
 * nftables table rejects what the others let through.
 * @throws FirewalldError
 */
export function refuseUnheardFirewalld(programs: Programs): void {
  if (!hasBus(programs) || programs.has('dbus-send')) return;
  const chains = withNftables((socket) => listBaseChains(socket, 'inet'));
  if (!chains.some(({ table }) => table.name === 'firewalld')) return;
  throw new FirewalldError(
    ErrorCode.NotAvailable,
    'firewalld filters on this host, but "dbus-send" is not installed to tell it what to let through. Install the package "dbus-bin" or "dbus-tools", or set "backend" to the firewall that lets the containers through',
  );
}

function hasBus({ environment }: Programs): boolean {
  return Boolean(environment.DBUS_SYSTEM_BUS_ADDRESS) || existsSync(busSocket);
}

/**
 * Waits until firewalld has finished what it is doing, such as starting. Returns at once if it does not run.
 */
export async function waitForFirewalld(programs: Programs): Promise<void> {
  if (await isFirewalldRunning(programs))
    await send(programs, service, path, `${service}.getDefaultZone`, []);
}

/** A zone of firewalld. */
export class Zone {
  private readonly programs: Programs;
  readonly name: string;

  constructor(programs: Programs, name: string) {
    this.programs = programs;
    this.name = name;
  }

  /** Makes an address a source of the zone. @returns false when it already was. @throws FirewalldError */
  async add(address: Address): Promise<boolean> {
    const answer = await this.call('addSource', address);
    if (alreadyThere.includes(answer.exception ?? '')) return false;
    if (answer.text === undefined) throw this.refusal('addSource', address, answer);
    return true;
  }

  /**
   * Removes an address from the zone. It is no error when it is not in there, or when firewalld does not run.
   * @throws FirewalldError
   */
  async remove(address: Address): Promise<void> {
    const answer = await this.call('removeSource', address);
    const isGone =
      !answer.error ||
      // If firewalld hangs, it has not removed anything: DEL is tried again.
      (notRunning.includes(answer.error) && answer.error !== noReply) ||
      notThere.includes(answer.exception ?? '');
    if (answer.text === undefined && !isGone) throw this.refusal('removeSource', address, answer);
  }

  /** Whether an address is a source of the zone. @throws FirewalldError */
  async has(address: Address): Promise<boolean> {
    const answer = await this.call('querySource', address);
    if (answer.text === undefined) throw this.refusal('querySource', address, answer);
    return /boolean true/.test(answer.text);
  }

  /** True when firewalld runs. */
  isReachable(): Promise<boolean> {
    return isFirewalldRunning(this.programs);
  }

  private call(method: string, address: Address): Promise<Answer> {
    return send(this.programs, service, path, `${zoneInterface}.${method}`, [
      this.name,
      `${address.toPrefix()}`,
    ]);
  }

  private refusal(method: string, address: Address, { error, exception = '', said }: Answer): CniError {
    // Nobody is told what it does with the request once it goes on.
    if (error === noReply)
      return new ProgramTimeoutError(
        ErrorCode.TryAgainLater,
        'firewalld did not answer in time. Try again; if that is of no use, look into the log of firewalld',
        said,
      );
    if (!error || notRunning.includes(error))
      return new FirewalldError(
        ErrorCode.Internal,
        'firewalld does not answer. Start it, or set "backend" to what the host has in its place',
        said,
      );
    const remedy = remedies[exception] ?? 'Look into the log of firewalld';
    return new FirewalldError(
      ErrorCode.Internal,
      `firewalld refuses ${method} of "${address.toPrefix()}" in zone "${this.name}": ${said}. ${remedy}`,
    );
  }
}

/**
 * Lets packets through by means of a zone.
 * @param isolation isolates bridges, for which firewalld has nothing.
 */
export function firewalldForward(zone: Zone, isolation: ForwardBackend): ForwardBackend {
  return {
    async allow(request, _isNew, undo) {
      for (const address of request.addresses)
        if (await zone.add(address))
          undo(`remove ${address} from the firewalld zone`, () => zone.remove(address));
      if (request.isolation) await isolation.allow({ ...request, addresses: [] }, true, undo);
    },
    async missing(request) {
      const missing: string[] = [];
      for (const address of request.addresses)
        if (!(await zone.has(address))) missing.push(`source ${address} of zone "${zone.name}" of firewalld`);
      if (request.isolation) missing.push(...(await isolation.missing({ ...request, addresses: [] })));
      return missing;
    },
    async remove(addresses) {
      for (const address of addresses) await zone.remove(address);
    },
    async probe() {
      if (await zone.isReachable()) return;
      throw new FirewalldError(
        ErrorCode.NotAvailable,
        'firewalld does not run, or the system bus is out of reach. Start it, or set "backend" to "iptables" or "nftables"',
      );
    },
  };
}

/** The outcome of calling a method. */
interface Answer {
  /** What the method returned; undefined when it failed. */
  readonly text?: string | undefined;
  /** D-Bus's name of the error, when there was an answer at all. */
  readonly error?: string | undefined;
  /** firewalld's name of the error, such as "INVALID_ZONE". */
  readonly exception?: string | undefined;
  /** What was said about the failure. */
  readonly said: string;
}

/** Calls a method on the system bus. Hosts with another bus than the reference one may lack dbus-send. */
async function send(
  programs: Programs,
  destination: string,
  object: string,
  method: string,
  args: readonly string[],
): Promise<Answer> {
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
    if (status === 0) return { text: stdout, said: '' };
    const [line = ''] = stderr.trim().split('\n');
    const [, error, said = line] = /^Error ([\w.]+): (.*)$/.exec(line) ?? [];
    return { error, exception: /^[A-Z][A-Z_]+(?=:|$)/.exec(said)?.[0], said };
  } catch (error) {
    if (!(error instanceof ProgramMissingError)) throw error;
    return { said: error.message };
  }
}
