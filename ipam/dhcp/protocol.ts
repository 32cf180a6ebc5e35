/** What plugin and daemon say to one another. */

import { connect } from 'node:net';
import { CniError, ErrorCode } from '../../lib/errors.ts';
import type { LeaseOwner } from './lease.ts';

/** Where the daemon listens unless it is told otherwise. */
export const defaultSocket = '/run/cni/dhcp.sock';

/** A plugin's request. */
export type Request =
  | { method: 'allocate'; owner: LeaseOwner; config: unknown; args: Record<string, string> }
  | { method: 'release' | 'check'; owner: LeaseOwner }
  | { method: 'collect'; network: string; keep: string[] }
  | { method: 'ping' };

/** The daemon's answer; for "allocate", the result in version 1.1.0. */
export interface Reply {
  result?: unknown;
  error?: { code: number; msg: string; details?: string };
}

/** Nobody listens on the daemon's socket. */
export class DaemonGoneError extends CniError {
  override readonly name = 'DaemonGoneError';
}

/**
 * Asks the daemon.
 * @throws DaemonGoneError when it does not run; CniError with what it reports.
 */
export async function askDaemon(socket: string, request: Request): Promise<unknown> {
  const line = await exchange(socket, `${JSON.stringify(request)}\n`);
  let reply: Reply;
  try {
    reply = JSON.parse(line) as Reply;
  } catch {
    throw new CniError(
      ErrorCode.Internal,
      `What listens on "${socket}" is not this plugin's daemon${/^HTTP/.test(line) ? ', but that of the reference plugin' : ''}. Stop it, and start "dhcp daemon" of this suite`,
      line.slice(0, 200),
    );
  }
  if (reply.error) throw new CniError(reply.error.code, reply.error.msg, reply.error.details);
  return reply.result;
}

function exchange(socket: string, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const connection = connect(socket, () => connection.write(line));
    connection.setEncoding('utf8').on('data', (part: string) => {
      answer += part;
      // Its own daemon ends each answer; another may keep the connection open.
      if (!answer.startsWith('{')) connection.end();
    });
    connection.on('close', () => resolve(answer));
    connection.on('error', (error) =>
      reject(
        new DaemonGoneError(
          ErrorCode.Internal,
          `The DHCP daemon does not answer on "${socket}". Start it with "dhcp daemon", for example by the systemd unit "cni-dhcp.service"`,
          error.message,
        ),
      ),
    );
  });
}
