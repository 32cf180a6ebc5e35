/** The overlay's settings: a JSON file whose keys are the names of flanneld's options. */

import { parseJson } from '../../lib/cni/json.ts';
import {
  boolean,
  convert,
  decode,
  type InferShape,
  json,
  object,
  string,
  withDefault,
} from '../../lib/cni/schema.ts';
import type { EtcdSettings } from '../../lib/etcd/client.ts';
import { parseEndpoints, readPem } from '../../lib/etcd/endpoint.ts';
import { readRegularFile } from '../../lib/file.ts';
import { Address } from '../../lib/ip.ts';
import { isObject } from '../../lib/object.ts';

const address = convert(string(), Address.parse);

/** Minutes, which may have fractions. */
const minutes = convert(json(), (value) => {
  if (typeof value === 'number' && value > 0 && value < 1440) return value;
  throw new Error(`${JSON.stringify(value)} is not a number of minutes above 0 and below 1440`);
});

const settings = object({
  'etcd-endpoints': withDefault(string(), 'http://127.0.0.1:2379'),
  'etcd-prefix': withDefault(string({ pattern: /^\/.*[^/]$/ }), '/coreos.com/network'),
  'etcd-keyfile': string(),
  'etcd-certfile': string(),
  'etcd-cafile': string(),
  'etcd-username': string(),
  'etcd-password': string(),
  iface: string(),
  'public-ip': address,
  'public-ipv6': address,
  'subnet-file': withDefault(string({ pattern: /^\/.*[^/]$/ }), '/run/flannel/subnet.env'),
  'subnet-lease-renew-margin': withDefault(minutes, 60),
  'ip-masq': withDefault(boolean(), false),
  'iptables-forward-rules': withDefault(boolean(), false),
});

/** What an operator has set. */
export type OverlaySettings = InferShape<typeof settings.shape>;

/** Reads a file of settings. @throws Error when it cannot be read, or is invalid. */
export function readOverlaySettings(file: string): OverlaySettings {
  let value: unknown;
  try {
    value = parseJson(readRegularFile(file, { followLink: true }));
  } catch (error) {
    throw new Error(`Cannot read the settings of the overlay in "${file}". Correct the file, or write one`, {
      cause: error,
    });
  }
  try {
    return decodeSettings(value);
  } catch (error) {
    throw new Error(`The settings of the overlay in "${file}" are wrong. Correct them`, { cause: error });
  }
}

function decodeSettings(value: unknown): OverlaySettings {
  if (!isObject(value)) throw new Error('They are not a JSON object');
  const known = Object.keys(settings.shape);
  const unknown = Object.keys(value).find((key) => !known.includes(key));
  if (unknown !== undefined)
    throw new Error(`"${unknown.slice(0, 80)}" is not one of them, which are ${known.join(', ')}`);
  const decoded = decode(settings, value);
  for (const [key, family] of [
    ['public-ip', 4],
    ['public-ipv6', 6],
  ] as const)
    if (decoded[key] && decoded[key].family !== family)
      throw new Error(`"${key}" is "${decoded[key]}", which is not an IPv${family} address`);
  // Checked now, so that what is wrong with them is reported at the start.
  etcdSettings(decoded);
  return decoded;
}

/** Where etcd is. @throws Error for a file that cannot be read, or an invalid address. */
export function etcdSettings(settings: OverlaySettings): EtcdSettings {
  const { 'etcd-cafile': ca, 'etcd-certfile': cert, 'etcd-keyfile': key } = settings;
  const endpoints = parseEndpoints('etcd-endpoints', settings['etcd-endpoints'], Boolean(ca || cert));
  if (endpoints.length === 0) throw new Error('"etcd-endpoints" names no member of etcd');
  return {
    endpoints,
    username: settings['etcd-username'],
    password: settings['etcd-password'],
    tls: {
      ca: readPem('etcd-cafile', ca),
      cert: readPem('etcd-certfile', cert),
      key: readPem('etcd-keyfile', key),
    },
    names: { endpoints: 'etcd-endpoints', username: 'etcd-username', password: 'etcd-password' },
  };
}
