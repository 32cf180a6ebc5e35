/**
 * Delegation: running another plugin on behalf of this call.
 * Source: CNI specification 1.1.0, section 4.
 */

import { statSync } from 'node:fs';
import { CniError, ErrorCode } from './errors.ts';
import type { Command } from './invocation.ts';
import { type Call, invoke, type Plugin } from './plugin.ts';
import { parseResult, type Result } from './result.ts';
import { isObject } from './schema.ts';

/** What a delegate is run with, where it differs from the call itself. */
export interface DelegateOptions {
  /** Standard input for the delegate; the call's own when left out. */
  stdin?: string;
  /** The verb; the call's own when left out. */
  command?: Command;
}

/**
 * Runs the IPAM plugin's ADD, and has it released again if this ADD fails later on.
 * @throws CniError, also when the plugin returns no address.
 */
export async function ipamAdd(call: Call): Promise<Result> {
  const type = requireIpam(call);
  // Registered first: a plugin killed half-way may have reserved an address all the same.
  call.undo(() => ipamDel(call));
  const result = await delegate(call, type, { command: 'ADD' });
  if (!result || result.ips.length === 0)
    throw new CniError(
      ErrorCode.Internal,
      `IPAM plugin "${type}" returned no IP address. Check the addresses in the "ipam" section`,
    );
  return result;
}

/** Releases what the IPAM plugin holds for this attachment. Does nothing without an IPAM plugin. */
export async function ipamDel(call: Call): Promise<void> {
  if (call.config.ipam?.type) await delegate(call, call.config.ipam.type, { command: 'DEL' });
}

/** Runs the IPAM plugin's CHECK. */
export async function ipamCheck(call: Call): Promise<void> {
  if (call.config.ipam?.type) await delegate(call, call.config.ipam.type, { command: 'CHECK' });
}

/** Runs the IPAM plugin's STATUS. */
export async function ipamStatus(call: Call): Promise<void> {
  if (call.config.ipam?.type) await delegate(call, call.config.ipam.type, { command: 'STATUS' });
}

/** Runs the IPAM plugin's GC. */
export async function ipamGc(call: Call): Promise<void> {
  if (call.config.ipam?.type) await delegate(call, call.config.ipam.type, { command: 'GC' });
}

/**
 * Runs another plugin with this call's environment and configuration: within this process when CNI_PATH leads to
 * this very executable, else as a child.
 * @param type name of the plugin.
 * @returns the result of ADD, undefined for other verbs.
 * @throws CniError the plugin's own error, or what kept it from running.
 */
export async function delegate(
  call: Call,
  type: string,
  options: DelegateOptions = {},
): Promise<Result | undefined> {
  const { stdin = call.stdin, command = call.command as Command } = options;
  const file = findPlugin(type, call.path);
  if (isSelf(file)) {
    const plugin = await call.embedded(type);
    if (plugin) return await invoke(plugin as Plugin, { ...call.invocation, command }, stdin, call.embedded);
  }
  const { runExecutable } = await import('./exec.ts');
  const output = await runExecutable(file, stdin, { ...process.env, CNI_COMMAND: command });
  return command === 'ADD' ? readOutput(output, type, call.config.cniVersion) : undefined;
}

/**
 * Looks a plugin up in CNI_PATH.
 * @returns the path of its executable.
 * @throws CniError when the name is no file name, or no directory has it.
 */
export function findPlugin(type: string, path: readonly string[]): string {
  if (type === '' || type.includes('/') || type === '.' || type === '..' || type.includes('\0'))
    throw new CniError(ErrorCode.Internal, `Plugin type "${type}" is not the name of an executable`);
  for (const directory of path) {
    const file = `${directory}/${type}`;
    if (statSync(file, { throwIfNoEntry: false })?.isFile()) return file;
  }
  throw new CniError(
    ErrorCode.Internal,
    `Plugin "${type}" is not in CNI_PATH. Install it in ${path.map((dir) => `"${dir}"`).join(' or ') || 'a directory of CNI_PATH'}, ` +
      'or correct the "type"',
  );
}

function requireIpam(call: Call): string {
  const type = call.config.ipam?.type;
  if (type) return type;
  throw new CniError(
    ErrorCode.Internal,
    `Plugin "${call.config.type ?? ''}" needs addresses, but "ipam" names no plugin. Set "ipam.type", for example to "host-local"`,
  );
}

function isSelf(file: string): boolean {
  const [other, self] = [statSync(file), statSync('/proc/self/exe')];
  return other.dev === self.dev && other.ino === self.ino;
}

function readOutput(output: string, type: string, version: string): Result {
  let value: unknown;
  try {
    value = output.trim() === '' ? null : JSON.parse(output);
  } catch (error) {
    throw new CniError(
      ErrorCode.DecodingFailure,
      `Plugin "${type}" succeeded, but what it printed is not JSON. Replace the executable by one that follows the CNI specification`,
      `${(error as Error).message}; it printed: ${output.slice(0, 500)}`,
    );
  }
  const own = isObject(value) && typeof value.cniVersion === 'string' ? value.cniVersion : '';
  return parseResult(value, own || version, `Result of "${type}"`);
}
