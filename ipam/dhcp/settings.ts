/** The command line of `dhcp daemon`; flags are those of the reference daemon. */

import { parseArgs } from 'node:util';
import type { ClientSettings } from './client.ts';
import { defaultSocket } from './protocol.ts';

/** How the daemon runs. */
export interface DaemonSettings extends ClientSettings {
  /** Path of the Unix socket, as the daemon sees it: below {@link hostPrefix}. */
  readonly socket: string;
  /** Directory that the host's root is mounted at, "" when it is the root itself. */
  readonly hostPrefix: string;
  readonly pidFile: string | undefined;
}

export const usage = `Usage: dhcp daemon [OPTION...]
Keeps the leases of containers whose networks use "dhcp" for IPAM.

  -socketpath PATH        Unix socket of the host to listen on (${defaultSocket})
  -pidfile PATH           write the process ID there
  -hostprefix PATH        directory that the host's root is mounted at; the socket is below it as well
  -broadcast              ask servers to answer by broadcast
  -timeout DURATION       accepted for compatibility: an answer is awaited until the message is sent again
  -resendmax DURATION     longest pause before a message is sent again (62s)
  -resendtimeout DURATION when to give up getting an address (30s)
`;

/** Reads the arguments after "daemon". @throws Error for an unknown one, or a value that is not valid. */
export function readSettings(args: readonly string[]): DaemonSettings {
  // Go's flags have one or two dashes; a boolean may have its value after "=".
  const { values } = parseArgs({
    args: args.map((arg) => arg.replace(/^-(?=[a-z])/, '--').replace(/^--broadcast$/, '$&=true')),
    options: {
      pidfile: { type: 'string' },
      hostprefix: { type: 'string', default: '' },
      socketpath: { type: 'string', default: '' },
      broadcast: { type: 'string', default: 'false' },
      timeout: { type: 'string', default: '10s' },
      resendmax: { type: 'string', default: '62s' },
      resendtimeout: { type: 'string', default: '30s' },
    },
  });
  readDuration('timeout', values.timeout);
  return {
    pidFile: values.pidfile,
    socket: `${values.hostprefix}${values.socketpath || defaultSocket}`,
    hostPrefix: values.hostprefix,
    broadcast: readBoolean('broadcast', values.broadcast),
    resendMax: readDuration('resendmax', values.resendmax),
    resendTimeout: readDuration('resendtimeout', values.resendtimeout),
  };
}

/** Source: strconv.ParseBool of Go. */
function readBoolean(name: string, text: string): boolean {
  if (/^(1|t|T|true|TRUE|True)$/.test(text)) return true;
  if (/^(0|f|F|false|FALSE|False)$/.test(text)) return false;
  throw new Error(`-${name} is "${text}", but it must be "true" or "false"`);
}

/** Units in milliseconds; "µ" has two code points in Unicode. Source: time.ParseDuration of Go. */
const units: Readonly<Record<string, number>> = {
  ...{ ns: 1e-6, us: 1e-3, µs: 1e-3, μs: 1e-3 },
  ...{ ms: 1, s: 1000, m: 60_000, h: 3_600_000 },
};

/** A duration as Go writes it, such as "1m30s". @returns milliseconds. */
function readDuration(name: string, text: string): number {
  if (text === '0') return 0;
  const part = `(\\d+(?:\\.\\d*)?|\\.\\d+)(${Object.keys(units).join('|')})`;
  if (!new RegExp(`^(?:${part})+$`).test(text))
    throw new Error(`-${name} is "${text}", but it must be like "10s" or "1m30s"`);
  let sum = 0;
  for (const [, number, unit] of text.matchAll(new RegExp(part, 'g'))) sum += Number(number) * units[unit!]!;
  return sum;
}
