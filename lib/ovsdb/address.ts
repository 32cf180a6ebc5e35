/** Where a database server listens, as Open vSwitch writes it. Source: ovsdb(7), "Connection Methods". */

import { connect as connectPlain, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { CniError, ErrorCode } from '../errors.ts';
import { readRegularFile } from '../file.ts';

/** Where to connect: a socket of the file system, or a host by TCP, with TLS or without. */
export type OvsdbAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number; readonly isSecure: boolean };

export const defaultAddress = 'unix:/var/run/openvswitch/db.sock';
const defaultPort = 6640;
/**
 * Where Open vSwitch's own tools look for keys unless they are told otherwise, as ovs-pki(8) creates them.
 */
const keys = {
  key: '/etc/openvswitch/sc-privkey.pem',
  cert: '/etc/openvswitch/sc-cert.pem',
  ca: '/etc/openvswitch/cacert.pem',
};

/**
 * Reads an address: "unix:FILE", "tcp:HOST[:PORT]" or "ssl:HOST[:PORT]".
 * @throws Error for anything else.
 */
export function parseAddress(text: string): OvsdbAddress {
  const [, method, rest = ''] = /^(unix|tcp|ssl):(.+)$/s.exec(text) ?? [];
  if (method === 'unix' && rest.startsWith('/')) return { path: rest };
  const [, v6, name, port = `${defaultPort}`] =
    /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::(\d{1,5}))?$/.exec(rest) ?? [];
  const host = v6 ?? name;
  if (method && method !== 'unix' && host && Number(port) > 0 && Number(port) < 65536)
    return { host, port: Number(port), isSecure: method === 'ssl' };
  throw new Error(
    `"socket_file" is ${JSON.stringify(text.slice(0, 200))}. Write it like "${defaultAddress}", "tcp:192.0.2.1:6640" or "ssl:192.0.2.1:6640"`,
  );
}

/**
 * Begins to connect.
 * @returns the socket, and the event that says that it is ready.
 * @throws CniError IOFailure when a key for TLS cannot be read; the error of OpenSSL when it is damaged.
 */
export function connectTo(address: OvsdbAddress): { socket: Socket; ready: 'connect' | 'secureConnect' } {
  if ('path' in address) return { socket: connectPlain(address), ready: 'connect' };
  const { isSecure, ...options } = address;
  if (!isSecure) return { socket: connectPlain(options), ready: 'connect' };
  const [key, cert, ca] = [keys.key, keys.cert, keys.ca].map(readKey);
  // Certificates of ovs-pki name switches, not hosts.
  const secrets = { key, cert, ca, checkServerIdentity: () => undefined };
  return { socket: connectTls({ ...options, ...secrets }), ready: 'secureConnect' };
}

function readKey(file: string): string {
  try {
    return readRegularFile(file, { followLink: true });
  } catch (error) {
    throw new CniError(
      ErrorCode.IOFailure,
      `"socket_file" begins with "ssl:", for which "${file}" is needed, and it cannot be read. Make it with ovs-pki(8), or use "unix:" or "tcp:"`,
      (error as Error).message,
    );
  }
}
