/**
 * Results of ADD: one shape in memory, read from and written in every version of the specification.
 * Shapes and key order are those of the specification ("Success") and of the reference library.
 */

import { CniError, ErrorCode } from '../errors.ts';
import { Address, Prefix } from '../ip.ts';
import { normalizeMac } from '../kernel/mac.ts';
import type { Once } from '../kernel/sharing.ts';
import { isObject } from '../object.ts';
import { array, convert, decode, type Infer, integer, object, required, string } from './schema.ts';
import { atLeast } from './version.ts';

/** A network interface that a plugin made or changed. */
export interface Interface {
  name: string;
  /** Lower-case, colon-separated. */
  mac?: string;
  /** Bytes. */
  mtu?: number;
  /** Path of the network namespace; absent for an interface of the host. */
  sandbox?: string;
  socketPath?: string;
  pciID?: string;
}

/** An address assigned to the container. */
export interface IPConfig {
  address: Prefix;
  gateway?: Address;
  /** Index into {@link Result.interfaces}; absent when unknown, as in an IPAM plugin's result. */
  interface?: number;
}

/** A route in the container. */
export interface Route {
  dst: Prefix;
  gw?: Address;
  /** Bytes. */
  mtu?: number;
  /** Bytes. */
  advmss?: number;
  priority?: number;
  table?: number;
  /** RT_SCOPE_* of linux/rtnetlink.h. */
  scope?: number;
}

/** Resolver settings. */
export interface Dns {
  nameservers?: string[];
  domain?: string;
  search?: string[];
  options?: string[];
}

/** What ADD gives back, and what CHECK, DEL and chained plugins get as prevResult. */
export interface Result {
  interfaces: Interface[];
  ips: IPConfig[];
  routes: Route[];
  dns: Dns;
}

/** An empty result to build on. */
export function emptyResult(): Result {
  return { interfaces: [], ips: [], routes: [], dns: {} };
}

/** True when no part of the resolver settings is set. */
function isEmptyDns(dns: Dns | undefined): boolean {
  return !dns?.nameservers?.length && !dns?.domain && !dns?.search?.length && !dns?.options?.length;
}

/** An IP address in a configuration or result. A field that is "" counts as absent. */
export const addressSchema = convert(string(), (text) => Address.parse(text), {
  emptyIsAbsent: true,
  examples: ['10.1.0.1'],
});
/** An IP address with prefix length in a configuration or result. */
export const prefixSchema = convert(string(), (text) => Prefix.parse(text), { examples: ['10.1.0.0/16'] });

/** Resolver settings in a configuration or result. */
export const dnsSchema = object(
  {
    nameservers: array(string({ description: 'Address of a name server.' })),
    domain: string({ description: 'Local domain for short names.' }),
    search: array(string({ description: 'Domain to search for short names.' })),
    options: array(string({ description: 'Resolver option, such as "ndots:5".' })),
  },
  { description: 'Resolver settings for the container.' },
);

/** A route in a configuration or result. */
export const routeSchema = object({
  dst: required(prefixSchema),
  gw: addressSchema,
  mtu: integer({ description: 'Path MTU in bytes.' }),
  advmss: integer({ description: 'Segment size to advertise to TCP peers, in bytes.' }),
  priority: integer({ max: 0xffffffff, description: 'Metric; lower wins.' }),
  table: integer({ max: 0xffffffff, description: 'Routing table number.' }),
  scope: integer({ max: 255, description: 'Scope: 0 universe, 253 link, 254 host.' }),
});

const interfaceSchema = object({
  name: required(string()),
  // Third-party plugins may write it as their configuration spells it.
  mac: convert(string(), normalizeMac),
  mtu: integer(),
  sandbox: string(),
  socketPath: string(),
  pciID: string(),
});

const ipSchema = object({
  address: required(prefixSchema),
  gateway: addressSchema,
  interface: integer({ min: -1 }),
});

const resultSchema = object({
  interfaces: array(interfaceSchema),
  ips: array(ipSchema),
  routes: array(routeSchema),
  dns: dnsSchema,
});

const oldIpSchema = object({
  ip: required(prefixSchema),
  gateway: addressSchema,
  routes: array(object({ dst: required(prefixSchema), gw: addressSchema })),
});

const oldResultSchema = object({ ip4: oldIpSchema, ip6: oldIpSchema, dns: dnsSchema });

/**
 * As {@link parseResult}. In a read-only process, a result that every plugin of a chain is given is parsed
 * only once; nobody changes it there.
 * @param once undefined in every other process.
 */
export function seenResult(value: unknown, version: string, once: Once | undefined): Result {
  if (!once) return parseResult(value, version);
  return once(`result ${version} ${JSON.stringify(value)}`, () => parseResult(value, version));
}

/**
 * Reads a result of any version.
 * @param value parsed JSON; null and `{}` are an empty result, as the reference library tolerates them.
 * @param version the version the value is in.
 * @throws SchemaError
 */
export function parseResult(value: unknown, version: string, path = 'prevResult'): Result {
  if (value === null || value === undefined) return emptyResult();
  if (!atLeast(version, '0.3.0')) return fromOldResult(decode(oldResultSchema, value, path));
  const { interfaces = [], ips = [], routes = [], dns = {} } = decode(resultSchema, value, path);
  return {
    interfaces: interfaces.map(({ mac, sandbox, ...rest }) => ({
      ...rest,
      ...(mac && { mac }),
      ...(sandbox && { sandbox }),
    })),
    ips,
    routes,
    dns,
  };
}

/**
 * Reads what a plugin printed in answer to ADD.
 * @param type of the plugin, for messages.
 * @param version of a result without a "cniVersion": the network's.
 * @returns the result, and the version it was in.
 * @throws CniError when it is not JSON; SchemaError when it is not a result.
 */
export function readOutput(
  output: string,
  type: string,
  version: string,
): { result: Result; version: string } {
  let value: unknown;
  try {
    value = JSON.parse(output);
  } catch (error) {
    throw new CniError(
      ErrorCode.DecodingFailure,
      `Plugin "${type}" succeeded, but what it printed is not JSON. Replace the executable by one that follows the CNI specification`,
      `${(error as Error).message}; it printed: ${output.slice(0, 500)}`,
    );
  }
  const own = isObject(value) && typeof value.cniVersion === 'string' ? value.cniVersion : '';
  return { result: parseResult(value, own || version, `Result of "${type}"`), version: own || version };
}

/**
 * Writes a result in the form of the given version of the specification.
 * @throws Error when the version cannot express it: 0.1.0 and 0.2.0 need an IP address.
 */
export function formatResult(result: Result, version: string): string {
  if (!atLeast(version, '0.3.0')) return formatJson(toOldResult(result, version));
  const modern = atLeast(version, '1.0.0');
  const value = {
    cniVersion: version,
    interfaces: nonEmpty(
      result.interfaces.map(({ name, mac, sandbox, ...recent }) => ({
        name,
        mac: mac || undefined,
        sandbox: sandbox || undefined,
        ...(atLeast(version, '1.1.0') && recent),
      })),
    ),
    ips: nonEmpty(
      result.ips.map((ip) => ({
        ...(!modern && { version: String(ip.address.family) }),
        interface: ip.interface,
        address: ip.address,
        gateway: ip.gateway,
      })),
    ),
    routes: nonEmpty(
      result.routes.map(({ dst, gw, mtu, advmss, priority, table, scope }) => ({
        dst,
        gw,
        mtu,
        advmss,
        priority,
        table,
        scope,
      })),
    ),
    // Before 1.0.0 the key is always written, even when there is nothing in it.
    dns: modern && isEmptyDns(result.dns) ? undefined : formatDns(result.dns),
  };
  return formatJson(modern ? sortKeys(value) : value);
}

/**
 * JSON as the reference library prints it: four spaces, no final newline, HTML-significant characters
 * escaped.
 */
export function formatJson(value: unknown): string {
  const escapes: Record<string, string> = { '<': '\\u003c', '>': '\\u003e', '&': '\\u0026' };
  return JSON.stringify(value, null, 4).replace(/[<>&]/g, (c) => escapes[c]!);
}

function fromOldResult(old: Infer<typeof oldResultSchema>): Result {
  const result = emptyResult();
  for (const ip of [old.ip4, old.ip6]) {
    if (!ip) continue;
    result.ips.push({ address: ip.ip, ...(ip.gateway && { gateway: ip.gateway }) });
    result.routes.push(...(ip.routes ?? []));
  }
  result.dns = old.dns ?? {};
  return result;
}

function toOldResult(result: Result, version: string): unknown {
  const family = (wanted: 4 | 6) => {
    const ip = result.ips.find(({ address }) => address.family === wanted);
    const routes = result.routes.filter(({ dst }) => dst.family === wanted);
    return (
      ip && {
        ip: ip.address,
        gateway: ip.gateway,
        routes: nonEmpty(routes.map(({ dst, gw }) => ({ dst, gw }))),
      }
    );
  };
  const [ip4, ip6] = [family(4), family(6)];
  if (!ip4 && !ip6)
    throw new Error(
      `A result without an IP address cannot be written in cniVersion "${version}". Set "cniVersion" to "0.3.0" or newer`,
    );
  return { cniVersion: version, ip4, ip6, dns: formatDns(result.dns) };
}

function formatDns(dns: Dns): Dns {
  return {
    ...(dns.nameservers?.length && { nameservers: dns.nameservers }),
    ...(dns.domain && { domain: dns.domain }),
    ...(dns.search?.length && { search: dns.search }),
    ...(dns.options?.length && { options: dns.options }),
  };
}

function nonEmpty<T>(list: T[]): T[] | undefined {
  return list.length > 0 ? list : undefined;
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== 'object' || value === null || 'toJSON' in value) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, sortKeys(item)]),
  );
}
