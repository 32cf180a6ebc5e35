/**
 * Where the Kubernetes API is and how a client authenticates, according to a kubeconfig. Source: type Config
 * of client-go's tools/clientcmd/api/v1.
 */

import { dirname, resolve } from 'node:path';
import { load, type YAMLException } from 'js-yaml';
import { CniError, ErrorCode } from '../errors.ts';
import { readRegularFile } from '../file.ts';
import type { Endpoint, Tls } from '../http.ts';
import { isObject } from '../object.ts';

/** Largest size of a kubeconfig, or of a file that it names, in bytes. */
const largestFile = 1024 * 1024;

/** A cluster, and a user of it. */
export interface Cluster {
  /** The kubeconfig, for messages. */
  readonly file: string;
  readonly endpoint: Endpoint;
  /** What every path of the API begins with, as behind a proxy for several clusters; "" for none. */
  readonly basePath: string;
  readonly tls: Tls;
  /** Value of the Authorization header. */
  readonly authorization: string | undefined;
  /** Namespace of the context; undefined when it names none. */
  readonly namespace: string | undefined;
}

/** Ways to log in that need something other than this file, with what they do. */
const otherLogins: Readonly<Record<string, string>> = {
  exec: 'which runs a program for each login',
  'auth-provider': 'which needs a program of its provider',
  as: 'which acts on behalf of somebody else',
};

/**
 * Reads a kubeconfig, with the certificates, keys and tokens that it names. It may be YAML or JSON, and its
 * relative paths are relative to it.
 * @throws CniError when a file cannot be read, or makes no sense; no message contains a secret.
 */
export function readKubeconfig(path: string): Cluster {
  const file = resolve(path);
  const config = new Section(parse(read(file, file), file), file, 'The file');
  const context = config.named('contexts', 'context', config.text('current-context') ?? '');
  const cluster = config.named('clusters', 'cluster', context.text('cluster') ?? '');
  const userName = context.text('user');
  const user = userName ? config.named('users', 'user', userName) : new Section({}, file, 'The user');
  for (const [key, why] of Object.entries(otherLogins))
    if (user.has(key))
      throw user.wrong(
        `has "${key}", ${why}, and is not supported. Give it a "token", a "tokenFile" or a client certificate instead`,
      );
  if (cluster.has('proxy-url'))
    throw cluster.wrong(
      'has "proxy-url", which is not supported. Set "server" to an address that this node reaches',
    );
  const server = cluster.text('server') ?? '';
  const url = URL.canParse(server) ? new URL(server) : undefined;
  if (!url || !['https:', 'http:'].includes(url.protocol) || url.username || url.search)
    throw cluster.wrong('has no usable "server". Set it to an address such as "https://192.0.2.1:6443"');
  const isSecure = url.protocol === 'https:';
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const cert = user.pem('client-certificate');
  const key = user.pem('client-key');
  if (Boolean(cert) !== Boolean(key))
    throw user.wrong('has only one of "client-certificate" and "client-key". Give it both');
  return {
    file,
    basePath: url.pathname.replace(/\/+$/, ''),
    endpoint: { isSecure, host, port: Number(url.port) || (isSecure ? 443 : 80), origin: url.origin },
    tls: {
      ca: cluster.pem('certificate-authority'),
      cert,
      key,
      servername: cluster.text('tls-server-name'),
      isInsecure: cluster.flag('insecure-skip-tls-verify'),
    },
    authorization: authorizationOf(user),
    namespace: context.text('namespace'),
  };
}

/** A token in a file takes precedence over one in the kubeconfig, as it gets renewed. */
function authorizationOf(user: Section): string | undefined {
  const tokenFile = user.path('tokenFile');
  const token = (tokenFile ? read(tokenFile, user.file).trim() : undefined) || user.text('token');
  // A line break or the like would end the header.
  if (token && !/^[\x21-\x7e]+$/.test(token))
    throw user.wrong('has a token with spaces or other characters that no token has. Correct it');
  if (token) return `Bearer ${token}`;
  const name = user.text('username');
  return name
    ? `Basic ${Buffer.from(`${name}:${user.text('password') ?? ''}`, 'utf8').toString('base64')}`
    : undefined;
}

/** A part of the file that has keys. */
class Section {
  readonly file: string;
  private readonly keys: Record<string, unknown>;
  private readonly name: string;

  /** @param name as in 'Cluster "prod"', for messages. */
  constructor(keys: Record<string, unknown>, file: string, name: string) {
    this.keys = keys;
    this.file = file;
    this.name = name;
  }

  has(key: string): boolean {
    return this.keys[key] !== undefined && this.keys[key] !== null;
  }

  /** A string; undefined when there is none, or it is empty. */
  text(key: string): string | undefined {
    const value = this.keys[key];
    if (typeof value === 'string') return value || undefined;
    if (this.has(key)) throw this.wrong(`has a "${key}" that is not a string. Correct it`);
    return undefined;
  }

  flag(key: string): boolean {
    const value = this.keys[key] ?? false;
    if (typeof value === 'boolean') return value;
    throw this.wrong(`has a "${key}" that is neither true nor false. Correct it`);
  }

  /** A path, which is relative to the directory of the kubeconfig. */
  path(key: string): string | undefined {
    const value = this.text(key);
    return value && resolve(dirname(this.file), value);
  }

  /** PEM from "KEY-data", which takes precedence, or from the file that "KEY" names. */
  pem(key: string): string | undefined {
    const data = this.text(`${key}-data`);
    const path = this.path(key);
    const text = data ? Buffer.from(data, 'base64').toString('utf8') : path && read(path, this.file);
    if (text && !text.includes('-----BEGIN '))
      throw this.wrong(`has a "${data ? `${key}-data` : key}" that is not PEM. Correct it`);
    return text;
  }

  /** What a list has under a name. @param key of the list's entry that holds it. */
  named(list: string, key: string, name: string): Section {
    const kind = `${key[0]!.toUpperCase()}${key.slice(1)}`;
    const entries: unknown = this.keys[list];
    const found = Array.isArray(entries)
      ? entries.find((one): one is Record<string, unknown> => isObject(one) && one.name === name)
      : undefined;
    if (!found)
      throw this.wrong(
        name
          ? `has no ${key} "${name}" in "${list}". Add it, or name another one`
          : `does not say which ${key} to use. Set "${key === 'context' ? 'current-context' : key}"`,
      );
    const value = found[key];
    return new Section(isObject(value) ? value : {}, this.file, `${kind} "${name}"`);
  }

  /** The error for something wrong in the section. */
  wrong(message: string): CniError {
    return new CniError(
      ErrorCode.InvalidNetworkConfig,
      `${this.name} ${message} in kubeconfig "${this.file}"`,
    );
  }
}

function read(path: string, kubeconfig: string): string {
  try {
    return readRegularFile(path, { followLink: true, limit: largestFile });
  } catch (error) {
    const named = path === kubeconfig ? '' : ` and is named in kubeconfig "${kubeconfig}"`;
    throw new CniError(
      ErrorCode.IOFailure,
      `"${path}" cannot be read${named}. Put the file there, or correct the path`,
      (error as Error).message,
    );
  }
}

/** The parser's message would show what is in the file, so only the line of a mistake is told. */
function parse(text: string, file: string): Record<string, unknown> {
  let value: unknown;
  let where = '';
  try {
    value = load(text);
  } catch (error) {
    const { mark } = error as YAMLException;
    if (mark) where = `, line ${mark.line + 1}`;
  }
  if (isObject(value)) return value;
  throw new CniError(
    ErrorCode.DecodingFailure,
    `Kubeconfig "${file}"${where} is not YAML with the keys of a kubeconfig. Write it anew, as with "kubectl config view --flatten"`,
  );
}
