/** Where an agent's metrics may be served: on its own host only, as anyone who can connect can read them. */

import { isIP } from 'node:net';

/** A Unix socket, or a TCP port of a loopback address. */
export type MetricsAddress = { readonly path: string } | { readonly host: string; readonly port: number };

/**
 * Reads an address as the operator writes it: `unix:/run/cni/metrics.sock`, `127.0.0.1:9464` or `[::1]:9464`.
 * @throws Error that says what is wrong with it.
 */
export function parseMetricsAddress(text: string): MetricsAddress {
  const forms = 'Give 127.0.0.1:PORT, [::1]:PORT or unix:/PATH';
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length);
    if (path.startsWith('/') && !path.includes('\0')) return { path };
    throw new Error(`The socket of the metrics address "${text}" must have an absolute path. ${forms}`);
  }
  const {
    v6,
    v4,
    digits = '',
  } = /^(?:\[(?<v6>[^\]]*)\]|(?<v4>[^:]*)):(?<digits>\d{1,5})$/.exec(text)?.groups ?? {};
  const host = v6 ?? v4 ?? '';
  const port = Number(digits);
  if (isIP(host) !== (v6 === undefined ? 4 : 6) || host.includes('%') || port < 1 || port > 65535)
    throw new Error(`"${text}" is not a metrics address. ${forms}`);
  // A URL shows an IPv6 address in its shortest form.
  if (v6 === undefined ? host.startsWith('127.') : new URL(`http://[${host}]`).hostname === '[::1]')
    return { host, port };
  throw new Error(
    `Metrics are served without encryption or a password, so only to this host, and "${host}" is not a loopback ` +
      `address. ${forms}, and let a collector or a proxy on this host pass them on`,
  );
}
