/** Plugins called within this process, and what their answers must be like. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Plugin } from '../../lib/cni/plugin.ts';
import { emptyResult } from '../../lib/cni/result.ts';
import { type FindPlugin, runPlugin } from '../../lib/cni/runner.ts';
import type { Suite } from '../../main.ts';
import { sourceSuite } from '../../scripts/suite.ts';
import { defectWords, mayRefuse } from './target.ts';

const root = join(import.meta.dirname, '../..');

export const suite: Suite = sourceSuite();

/** The plugins of the suite. */
export const plugins: readonly Plugin<never>[] = await Promise.all(
  [...suite.plugins.values(), ...suite.ipam.values()].map(async (load) => (await load()).plugin),
);

/** One of the sample networks in conf/, parsed. */
export function sampleList(file: string): { plugins: Record<string, unknown>[] } {
  return JSON.parse(readFileSync(join(root, 'conf', file), 'utf8'));
}

/**
 * A plugin without its effects: what reads its configuration without looking at the host is run, and its
 * verbs do nothing.
 */
export function withoutEffects(plugin: Plugin<never>): Plugin<never> {
  const idle = () => {};
  return {
    ...plugin,
    add({ config }) {
      for (const look of [plugin.validate, plugin.explain, plugin.pools])
        mayRefuse(() => look?.call(plugin, config));
      return emptyResult();
    },
    ...{ del: idle, check: idle, gc: idle, status: idle },
  };
}

/**
 * Calls a plugin.
 * @param options.program path that stands for the suite, whose plugins are found within this process.
 * @returns what it printed, parsed.
 * @throws Error when that is not what the specification asks for.
 */
export async function answerOf(
  plugin: Plugin<never>,
  stdin: string,
  environment: Readonly<Record<string, string>>,
  { program = process.execPath, find = () => undefined }: { program?: string; find?: FindPlugin } = {},
): Promise<Record<string, unknown> | undefined> {
  let output = '';
  const exit = await runPlugin(
    plugin,
    {
      program,
      environment,
      warn: requireNoStack,
      readStdin: async () => stdin,
      print: async (text) => {
        output += text;
      },
    },
    find,
  );
  return requireAnswer(output, exit);
}

/**
 * Checks what a plugin has printed.
 * @returns it parsed, undefined when there is nothing.
 * @throws Error when it is not what the specification asks for.
 */
export function requireAnswer(output: string, exit: number): Record<string, unknown> | undefined {
  requireNoStack(output);
  if (output === '' && exit === 0) return undefined;
  const answer = JSON.parse(output) as Record<string, unknown>;
  if (exit === 0) return answer;
  const { code, msg, details = '', cniVersion } = answer;
  const isError =
    Number.isInteger(code) && typeof msg === 'string' && msg !== '' && typeof details === 'string';
  // The version is left out when the configuration could not be read.
  if (!isError || !['string', 'undefined'].includes(typeof cniVersion))
    throw new Error(`Not an error of CNI: ${output}`);
  return answer;
}

/** @throws Error for text that shows a defect. */
export function requireNoStack(text: string): void {
  if (/\\n\s+at |\n\s+at /.test(text) || defectWords.test(text))
    throw new Error(`A defect shows in the answer: ${text.slice(0, 500)}`);
}

/** The environment of a call whose namespace does not exist. */
export function environmentOf(command: string, more: Record<string, string> = {}): Record<string, string> {
  return {
    CNI_COMMAND: command,
    CNI_CONTAINERID: 'c1',
    CNI_IFNAME: 'eth0',
    CNI_NETNS: '/run/netns/none-such',
    CNI_PATH: '/none',
    ...more,
  };
}
