/**
 * JSON Schemas of whole configuration files, composed of the schemas that the plugins themselves decode with.
 */

import { netConfShape } from '../lib/cni/config.ts';
import { configSchema, type Plugin } from '../lib/cni/plugin.ts';
import { type JsonSchema, toJsonSchema } from '../lib/cni/schema.ts';
import { isObject } from '../lib/object.ts';
import type { PluginTable, Suite } from '../main.ts';

const dialect = 'https://json-schema.org/draft/2020-12/schema';

/** Keys of a conflist besides its plugins. Source: CNI specification 1.1.0, section 1. */
export const conflistProperties: JsonSchema = {
  cniVersion: netConfShape.cniVersion.json,
  cniVersions: {
    type: 'array',
    items: { type: 'string' },
    description:
      'Versions of the specification that the network can be used in; runtimes take the highest they know.',
  },
  name: { ...netConfShape.name.json, pattern: '^[a-zA-Z0-9][a-zA-Z0-9_.-]*$' },
  disableCheck: { type: ['boolean', 'string'], description: 'True if runtimes must not call CHECK.' },
  disableGC: { type: ['boolean', 'string'], description: 'True if runtimes must not call GC.' },
  loadOnlyInlinedPlugins: {
    type: ['boolean', 'string'],
    description: 'True if plugins in files of a directory named after the network are left out.',
  },
};

/** Further keys of a conflist that are not mistakes: editors and other programs keep them there. */
const foreignListProperties: JsonSchema = {
  $schema: { type: 'string', description: 'The schema that editors check the file with.' },
  args: { type: 'object', description: 'Labels of podman, which writes its networks with them.' },
  nerdctlID: { type: 'string', description: 'Written by nerdctl.' },
  nerdctlLabels: { type: 'object', description: 'Written by nerdctl.' },
};

/** Keys that only the runtime fills in, when it calls a plugin. */
export const runtimeKeys = [
  'runtimeConfig',
  'prevResult',
  'cni.dev/valid-attachments',
  'cni.dev/attachments',
] as const satisfies (keyof typeof netConfShape)[];

/** Loads a plugin. @returns undefined when the table has none of that name. */
export async function loadPlugin(table: PluginTable, name: string): Promise<Plugin<unknown> | undefined> {
  // A plugin's config type is its own business; here it is only described.
  return (await table.get(name)?.())?.plugin as Plugin<unknown> | undefined;
}

/**
 * Every key that a plugin's configuration may have in a file.
 * @param ipam the IPAM plugin that it is configured with.
 */
export function configProperties(plugin: Plugin<unknown>, ipam?: Plugin<unknown>): JsonSchema {
  return {
    ...(configSchema(plugin as Plugin<never>).json.properties as JsonSchema),
    ...(ipam && { ipam: propertiesOf(ipam).ipam }),
  };
}

/** A plugin's own keys. */
function propertiesOf(plugin: Plugin<unknown>): JsonSchema {
  return (plugin.config.json.properties ?? {}) as JsonSchema;
}

/** Capabilities that a plugin takes, each with the schema of what the runtime passes for it. */
export function capabilitiesOf(plugin: Plugin<unknown>): JsonSchema {
  const { runtimeConfig } = propertiesOf(plugin);
  return isObject(runtimeConfig) && isObject(runtimeConfig.properties) ? runtimeConfig.properties : {};
}

/** The files of conf/schema: contents by name. */
export async function schemaFiles(suite: Suite): Promise<Map<string, string>> {
  const files = new Map<string, JsonSchema>();
  for (const [table, isIpam] of [
    [suite.plugins, false],
    [suite.ipam, true],
  ] as const)
    for (const name of table.keys())
      files.set(`${name}.json`, pluginSchema((await loadPlugin(table, name))!, isIpam));
  files.set('ipam.json', ipamSchema([...suite.ipam.keys()]));
  files.set('conflist.json', conflistSchema([...suite.plugins.keys()]));
  return new Map([...files].map(([name, schema]) => [name, `${JSON.stringify(schema, null, 2)}\n`]));
}

/** For an object with no keys other than the listed ones and those with the specification's prefix. */
const only = { patternProperties: { '^cni\\.dev/': {} }, additionalProperties: false };
/** Keys that the runtime fills in, or passes through from other programs, as it likes. */
const open = ['args', ...runtimeKeys];

/**
 * Has every object refuse keys that its plugin would ignore, such as misspelt ones. Editors underline these
 * as warnings, and `cni validate` has a warning of its own.
 */
function closed(properties: JsonSchema): JsonSchema {
  const close = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(close);
    if (!isObject(value)) return value;
    const copy = Object.fromEntries(Object.entries(value).map(([key, one]) => [key, close(one)]));
    return isObject(value.properties) && value.additionalProperties === undefined
      ? { ...copy, ...only }
      : copy;
  };
  return Object.fromEntries(
    Object.entries(properties).map(([key, value]) => [key, open.includes(key) ? value : close(value)]),
  );
}

function pluginSchema(plugin: Plugin<unknown>, isIpam: boolean): JsonSchema {
  const own = toJsonSchema(plugin.config);
  const properties = configProperties(plugin);
  const ownIpam = (own.properties as JsonSchema | undefined)?.ipam;
  const schema = closed({
    ...toJsonSchema({ json: properties, decode: (value) => value }),
    ...(!isIpam && { type: { const: plugin.name } }),
    ...(!isIpam && !ownIpam && { ipam: { $ref: 'ipam.json' } }),
  });
  return {
    $schema: dialect,
    title: `Configuration of the ${isIpam ? 'IPAM' : 'CNI'} plugin "${plugin.name}"`,
    description: plugin.summary,
    type: 'object',
    properties: schema,
    // The keys beside "ipam" belong to the plugin that calls this one.
    ...(!isIpam && only),
    required: [...new Set([...(isIpam ? [] : ['type']), ...((own.required as string[] | undefined) ?? [])])],
  };
}

/** What "ipam" may hold depends on its "type". */
function ipamSchema(names: readonly string[]): JsonSchema {
  return {
    $schema: dialect,
    title: 'Address management of a CNI plugin',
    type: 'object',
    properties: {
      type: { type: 'string', examples: names, description: 'Name of the IPAM plugin executable.' },
    },
    allOf: names.map((name) => whenType(name, `${name}.json#/properties/ipam`)),
  };
}

function conflistSchema(names: readonly string[]): JsonSchema {
  return {
    $schema: dialect,
    title: 'CNI network configuration list',
    type: 'object',
    properties: {
      ...conflistProperties,
      ...foreignListProperties,
      plugins: {
        type: 'array',
        minItems: 1,
        description: 'The plugins, in the order in which ADD runs them.',
        items: {
          type: 'object',
          properties: {
            type: { type: 'string', examples: names, description: 'Name of the plugin executable.' },
          },
          required: ['type'],
          allOf: names.map((name) => whenType(name, `${name}.json`)),
        },
      },
    },
    required: ['cniVersion', 'name'],
    ...only,
  };
}

function whenType(name: string, reference: string): JsonSchema {
  // From entries, because an object written with a key "then" would look like a promise.
  return Object.fromEntries([
    ['if', { properties: { type: { const: name } }, required: ['type'] }],
    ['then', { $ref: reference }],
  ]);
}
