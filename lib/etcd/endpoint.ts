/** How settings say where etcd is, and which certificates to use. */

import { CniError, ErrorCode } from '../errors.ts';
import { readRegularFile } from '../file.ts';
import type { Endpoint } from '../http.ts';

const defaultPort = 2379;

/**
 * Reads a list of members.
 * @param key name of the setting, for messages. @param text the members, separated by commas.
 * @param usesTls whether members that do not say http or https use TLS.
 * @throws Error for an address that makes no sense.
 */
export function parseEndpoints(key: string, text: string, usesTls: boolean): Endpoint[] {
  // What is before the "@" may be a password, which may contain a comma.
  if (text.includes('@'))
    throw new Error(
      `"${key}" has an "@", but a user and a password do not go into addresses. Take them out, and set them by keys of their own`,
    );
  return text
    .split(',')
    .map((one) => one.trim())
    .filter(Boolean)
    .map((one) => parseEndpoint(key, one, usesTls));
}

function parseEndpoint(key: string, text: string, usesTls: boolean): Endpoint {
  const [, scheme, v6, name, port = `${defaultPort}`] =
    /^(?:(https?):\/\/)?(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::(\d{1,5}))?\/?$/.exec(text) ?? [];
  const host = v6 ?? name;
  if (!host || Number(port) < 1 || Number(port) > 65535)
    throw new Error(
      `"${key}" names ${JSON.stringify(text.slice(0, 200))}. Write it like "192.0.2.1:2379" or "https://etcd-1:2379"`,
    );
  const isSecure = scheme ? scheme === 'https' : usesTls;
  const shown = v6 ? `[${v6}]` : host;
  return { isSecure, host, port: Number(port), origin: `${isSecure ? 'https' : 'http'}://${shown}:${port}` };
}

/**
 * Reads a certificate or a key.
 * @param key name of the setting, for messages.
 * @returns undefined when no file is named.
 * @throws CniError when it cannot be read.
 */
export function readPem(key: string, file: string | undefined): string | undefined {
  if (!file) return undefined;
  try {
    return readRegularFile(file, { followLink: true });
  } catch (error) {
    throw new CniError(
      ErrorCode.IOFailure,
      `"${key}" is "${file}", which cannot be read. Correct it, or put the file there`,
      (error as Error).message,
    );
  }
}
