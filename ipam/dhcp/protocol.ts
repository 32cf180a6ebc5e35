/**
 * What plugin and daemon say to one another: a line of JSON each way. While the daemon works on an answer it
 * sends an empty line every two seconds, so that a plugin can tell a slow DHCP server from a daemon that
 * hangs.
 */

import { connect } from 'node:net';
import { parseJson } from '../../lib/cni/json.ts';
import {
  array,
  boolean,
  decode,
  integer,
  json,
  object,
  record,
  required,
  string,
  withDefault,
} from '../../lib/cni/schema.ts';
import { CniError, ErrorCode } from '../../lib/errors.ts';
import { type LeaseOwner, ownerSchema } from './owner.ts';

/** Where the daemon listens unless it is told otherwise. */
export const defaultSocket = '/run/cni/dhcp.sock';

/** Pause between two signs of life, in milliseconds. */
export const signOfLifeInterval = 2000;
/** How long the daemon may be silent before it is taken to hang, in milliseconds. */
const longestSilence = 10_000;
/** The longest line, in characters. */
export const longestLine = 1024 * 1024;

/** A plugin's request. */
export type Request =
  | { method: 'allocate'; owner: LeaseOwner; config: unknown; args: Record<string, string> }
  | { method: 'release' | 'check'; owner: LeaseOwner }
  | { method: 'collect'; network: string; keep: string[] }
  | { method: 'ping' };

/** The daemon's answer to "allocate". */
export interface Allocation {
  /** A result of CNI version 1.1.0. */
  readonly result: unknown;
  /** Whether the lease is new, so that a failed ADD has to give it back. */
  readonly isNew: boolean;
}

/** The daemon's answer. */
export interface Reply {
  result?: unknown;
  error?: { code: number; msg: string; details?: string };
}

const requestSchema = object({ method: required(string()) });
const ownedSchema = object({ owner: required(ownerSchema) });
const allocateSchema = object({
  owner: required(ownerSchema),
  config: json(),
  args: required(record(string())),
});
const collectSchema = object({ network: required(string()), keep: required(array(string())) });

/** Reads what a plugin sent. @throws Error when it is not a request. */
export function readRequest(line: string): Request {
  const value: unknown = JSON.parse(line);
  const { method } = decode(requestSchema, value);
  switch (method) {
    case 'allocate': {
      const { config, ...rest } = decode(allocateSchema, value);
      return { method, config, ...rest };
    }
    case 'release':
    case 'check':
      return { method, ...decode(ownedSchema, value) };
    case 'collect':
      return { method, ...decode(collectSchema, value) };
    case 'ping':
      return { method };
    default:
      throw new Error('The plugin is of another version than the daemon. Restart the daemon');
  }
}

/** Nobody listens on the daemon's socket. */
export class DaemonGoneError extends CniError {
  override readonly name = 'DaemonGoneError';
}

/** The daemon takes the request but says nothing. */
export class DaemonMuteError extends CniError {
  override readonly name = 'DaemonMuteError';

  constructor(socket: string) {
    super(
      ErrorCode.TryAgainLater,
      `The DHCP daemon on "${socket}" has said nothing for ${longestSilence / 1000} seconds. ` +
        'Try again, and if that does not help, look at its log and restart it',
    );
  }
}

/** The daemon ended while it worked on the request, as when it is restarted. */
function endedError(socket: string): CniError {
  return new CniError(
    ErrorCode.TryAgainLater,
    `The DHCP daemon on "${socket}" ended before it had answered. Try again, and if that does not help, look at its log`,
  );
}

/**
 * Asks the daemon.
 * @throws DaemonGoneError when it does not run; DaemonMuteError when it hangs; CniError TryAgainLater when it
 *   ends before answering; CniError with what it reports.
 */
export async function askDaemon(socket: string, request: Request): Promise<unknown> {
  const line = await exchange(socket, `${JSON.stringify(request)}\n`);
  if (line === '') throw endedError(socket);
  const reply = parseReply(line);
  if (!reply) {
    const whose = line.startsWith('HTTP') ? ', but that of the reference plugin' : '';
    throw new CniError(
      ErrorCode.Internal,
      `What listens on "${socket}" is not this plugin's daemon${whose}. Stop it, and start "dhcp daemon" of this suite`,
      line.slice(0, 200),
    );
  }
  if (reply.error) throw new CniError(reply.error.code, reply.error.msg, reply.error.details);
  return reply.result;
}

const replySchema = object({
  result: json(),
  error: object({ code: required(integer({ min: 1 })), msg: required(string()), details: string() }),
});

/** @returns undefined for what is not an answer of this suite's daemon. */
function parseReply(line: string): Reply | undefined {
  try {
    return decode(replySchema, parseJson(line));
  } catch {
    return undefined;
  }
}

const allocationSchema = object({ result: json(), isNew: withDefault(boolean(), false) });

/** Reads the answer to "allocate". @throws SchemaError when it is not one. */
export function readAllocation(answer: unknown): Allocation {
  const { result, isNew } = decode(allocationSchema, answer, 'The answer of the daemon');
  return { result, isNew };
}

function exchange(socket: string, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const connection = connect(socket, () => connection.write(line));
    connection.setTimeout(longestSilence, () => connection.destroy(new DaemonMuteError(socket)));
    connection.setEncoding('utf8').on('data', (part: string) => {
      answer = (answer + part).trimStart();
      // This daemon ends each answer; another one may keep the connection open, or talk without end.
      if ((answer !== '' && !answer.startsWith('{')) || answer.length > longestLine) {
        connection.destroy();
        resolve(answer);
      }
    });
    connection.on('close', () => resolve(answer));
    connection.on('error', (error: NodeJS.ErrnoException) => reject(asDaemonError(socket, error)));
  });
}

function asDaemonError(socket: string, error: NodeJS.ErrnoException): Error {
  if (error instanceof DaemonMuteError) return error;
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE') return endedError(socket);
  // Its queue of connections is full.
  if (error.code === 'EAGAIN') return new DaemonMuteError(socket);
  return new DaemonGoneError(
    ErrorCode.Internal,
    `The DHCP daemon does not answer on "${socket}". Start it with "dhcp daemon", for example by the systemd unit "cni-dhcp.service"`,
    error.message,
  );
}
