// What the server sends and is sent (ui/rendering.py and the panels write it), what the page's parts hand each other, and
// what our rules for markdown-it add to its own types.

import type { MarkdownIt, StateBlock, StateCore, StateInline, Token as MarkdownToken } from "markdown-it";

export type { MarkdownIt };

/** What fills the gaps of a text. */
export type Values = Record<string, any>;
/** A sentence by its key. */
export type Message = { key: string; values?: Values };
/** Tells the server what the reader asked for; the answer is true where one came. */
export type Act = (name: string, data?: object) => unknown;
/** Whose this tab is, and which conversation it shows, see sessions/visitors.py. */
export type Place = Record<string, unknown>;
/** What Gradio's composer holds: text and files. */
export type Composed = { text?: string; files?: unknown[] } | null;
/** Has a component of Gradio's fire an event. */
export type Trigger = (name: string) => void;
/** What Gradio does not know yet. */
export type PendingUpdates = { place?: Place; composer?: Record<string, unknown> };

// The conversation

export type Branch = { number: number; count: number; previous: number | null; next: number | null };
export type Way = "previous" | "next";
export type ImageValue = { src: string; name: string; width: number; height: number };
export type Usage = {
  prompt_tokens: number;
  reused_tokens: number;
  reasoning_tokens: number;
  answer_tokens: number;
  completion_tokens: number;
  first_token_seconds: number;
  reasoning_seconds: number;
  total_seconds: number;
  tokens_per_second: number;
  prompt_estimated: boolean;
};
/** Where replies come from; `here` says whether the same model would write now. */
export type Source = {
  [fact: string]: any;
  here: boolean;
  system_prompt: string | null;
  instructions: string;
  keep_reasoning: boolean;
};
/** A turn far above, of which only the length is here. */
export type OutlineValue = {
  id: number;
  role: "user" | "assistant";
  outline: number;
  keep_reasoning?: boolean | null;
  branch?: Branch | null;
};
export type UserValue = {
  id: number;
  role: "user";
  outline?: undefined;
  text: string;
  pictures: ImageValue[];
  branch?: Branch | null;
};
export type ReplyValue = {
  id: number;
  role: "assistant";
  outline?: undefined;
  generation: string;
  /** Characters. */
  reasoning: number;
  answer: string;
  closed: boolean;
  ended: string;
  may_continue: boolean;
  failure: Message | null;
  notices: Message[];
  usage: Usage;
  params: Parameters | null;
  model: string;
  source: number | null;
  edited: boolean;
  may_replay: boolean;
  keep_reasoning: boolean | null;
  branch?: Branch | null;
};
export type TurnValue = OutlineValue | UserValue | ReplyValue;
export type Welcome = {
  demo: boolean;
  description: string;
  examples: { text: string; language: string; picture: string | null }[];
};
/** What turns are drawn with besides their own values. */
export type Surroundings = { unanswered?: number | null; sources: Source[] };
export type PageValue = Surroundings & {
  conversation: string | null;
  server: string;
  seen: number;
  asked: number;
  follows?: boolean;
  turns: TurnValue[];
  live: string | null;
  continues: number | null;
  alert?: Message | null;
  deleted?: Deleted;
  welcome: Welcome;
};
export type Deleted = { message: number; count: number };
export type MoreValue = Surroundings & {
  conversation: string;
  number: number;
  turns: (UserValue | ReplyValue)[];
  reasoning: { message: number | null; text: string };
};
/** An update of a running reply, see sessions/live_view.py. */
export type LiveUpdate = {
  start: number;
  seen: number;
  state: string;
  position: number;
  retry_seconds: number;
  done: number;
  total: number;
  reasoning: string;
  answer: string;
  seconds: number;
  reasoning_tokens: number;
  answer_tokens: number;
  answer_now: boolean;
};

// The panels

/** The parameters' values by name; null where an optional one has none. */
export type Parameters = Record<string, number | null>;
export type Parameter = {
  name: string;
  default: number | null;
  low: number;
  high: number;
  step: number;
  integer: boolean;
  optional: boolean;
  common: boolean;
  logarithmic: boolean;
};
/** Keys of the reasons why a server lacks something, by its name. */
export type Missing = Record<string, string>;
export type PanelValue = {
  card: string;
  vision: boolean;
  parameters: Parameter[];
  own: Parameters;
  presets: { key: string; values: Parameters }[];
  recommended: boolean;
  /** Whether the model's makers advise keeping earlier reasoning in the context. */
  keeps_reasoning: boolean;
  picture_sides: number[];
  missing: Missing;
};
/** How much the model thinks; a budget of null is no limit. */
export type ThinkingLevel = { name: string; budget: number | null };
export type Preset = { name: string; values: Parameters };
export type Settings = {
  params: Parameters;
  instructions: string;
  system_prompts: Record<string, string>;
  keep_reasoning: boolean;
  picture_side: number | null;
};
export type PromptValue = {
  card: string;
  own: string;
  parts: { text: string; reasoning: boolean }[];
  marks: [string, string];
  thinks: boolean;
  limit: number;
};
export type Language = { code: string; name: string; tag: string };
export type LimitsValue = { keys: string[]; values: Values; login: boolean };
export type Plan = {
  [part: string]: any;
  /** Layers that llama.cpp keeps on the GPU, the head among them, and those that it runs on the CPU beside it. */
  gpu_layers: number | null;
  ram_layers: number;
  kv_type: string;
  visitors: number;
  usual: number;
  shares: { layers: number }[];
};
export type ModelInfo = {
  name: string;
  source: string;
  precision: string;
  device: string;
  context_length: number;
  parameters: number;
  revision: string;
  chosen_because: string;
  engine: string;
  plan: Plan | null;
  notices: Message[];
  missing: Missing;
};
/** The state of the model, see ui/panels.py; `info` is there when it is ready. */
export type ModelValue = {
  card: string;
  demo: boolean;
  vision: boolean;
  description: string;
  command: string;
  state: "loading" | "ready" | "unloaded" | "broken";
  mark?: string;
  key: string;
  values?: Values;
  info?: ModelInfo;
  notices?: Message[];
  stage?: string;
  done: number;
  total: number;
  seconds_left?: number | null;
};
export type EngineName = "transformers" | "llama.cpp";
/** One precision in which a model runs here; sizes in bytes, `context` in tokens. */
export type ModelChoice = {
  precision: string;
  engine: EngineName;
  weights: number;
  needs: number;
  context: number;
  pace: number | null;
  measured: boolean;
};
/** Where to download a model from for a precision; of GGUF files, `repository` is `owner/name:QUANTIZATION`. Sizes in bytes. */
export type ModelWay = {
  repository: string;
  precision: string;
  engine: EngineName;
  download: number;
  memory: number;
  fits: boolean;
};
/** A model of the list, see ui/model_values.py. */
export type ModelEntryValue = {
  key: string;
  name: string;
  repository: string;
  /** Of a GGUF file, as it is named in the repository; else empty. */
  quantization: string;
  license: string;
  parameters: number;
  languages: string[];
  benchmarks: Record<string, number>;
  state: "absent" | "partial" | "downloading" | "paused" | "complete" | "local";
  on_disk: number;
  download: number;
  done: number;
  total: number;
  seconds_left: number | null;
  seconds: number | null;
  fits: boolean;
  refusal: Message | null;
  failure: Message | null;
  best: boolean;
  choices: ModelChoice[];
  ways: ModelWay[];
  /** The key of the model that this one is a quantized copy of. */
  original: string | null;
  /** Its quantized copies that are on this computer, see model_facts.js. */
  copies?: ModelEntryValue[];
};
/** How to run a model; null is left to the app. */
export type ChosenRun = { precision: string | null; context: number | null };
/** The models of this machine; without `owner`, nothing else is sent. */
export type ModelsValue = {
  owner: boolean;
  switchable: boolean;
  why_not: Message | null;
  device: string;
  memory: { free: number; total: number };
  disk_free: number;
  idle_minutes: number;
  current: { key: string; precision: string; context: number; state: string };
  running: number;
  asks: "running" | null;
  failure: Message | null;
  offer: string | null;
  /** Whether the speed of models on this machine is being measured. */
  timing: boolean;
  models: ModelEntryValue[];
};
export type ConversationSummary = { id: string; title: string; changed: number; pinned: boolean; excerpt?: string | null };
export type Ticket = { does: "save" | "bring"; token: string; name: string };
export type HistoryValue = {
  server: string;
  begun: number;
  read: number;
  entries: ConversationSummary[] | null;
  complete: boolean;
  writing: string[];
  query: string;
  trouble: Message | null;
  durable: boolean;
  removed?: string | null;
  forgotten?: boolean;
  ticket?: Ticket;
  refused?: Message;
};
export type Exchanged = { imported?: number; failure?: Message };
/** Tokens of the context by what they are used for. */
export type Use = Record<string, number> & { estimated: boolean; message_pictures: number[] } & any;
export type Remedy = { key: string; count?: number; side?: number; advised_against?: boolean };
export type MeterValue = {
  limit: number | null;
  total: number;
  room: number;
  use: Use;
  fit: string;
  remedies?: Remedy[];
  failure: Message | null;
  /** Characters and images of the message that was counted. */
  of: [number, number];
};
/** What a message may have. */
export type MessageLimits = { pictures: number; bytes: number };
export type AttachedValue = { number: number; attached: { failure: Message | null; thumbnail: string | null }[] };
export type Refused = { name?: string; why: string; limit?: number };

// The parts

/** What keeps a message in the composer, see `hold` in composer.js. */
export type Obstacle = { reason: string; waits?: boolean; hurry?: () => void };
export type MenuItem = {
  label: string;
  note?: string;
  act: (opener: HTMLElement) => unknown;
  checked?: boolean;
  disabled?: boolean;
  why?: string;
};
/** What a turn may call. */
export type Hands = {
  act: Act;
  choose: (message: number, way: Way) => void;
  reasoning: (message: number) => Promise<string>;
  menu: import("./menu.js").Menu;
  details: import("./reply_details.js").ReplyDetails;
  toast: import("./toast.js").Toast;
};
/** The place of a turn that is not here yet. */
export type Outline = {
  id: number;
  element: HTMLElement;
  branch?: Branch | null;
  branches: { show(branch: Branch): void; focus(way: Way): void };
  update(value?: any, more?: Surroundings): void;
  isOutline: true;
};
export type Mark = { begin: string; end: string; display: boolean };

// Markdown

/** A token with the notes of our rules in `meta`. */
export type Token = Omit<MarkdownToken, "meta" | "children"> & { meta: any; children: Token[] | null };
/** Lines that were looked up last, see lines.js. */
export type Inside = { blkIndent: number; level: number; end: number; from: number; to: number };
/** Where the marks of LaTeX stand in a text, see math.js. */
export type Marks = {
  text: string;
  round: number[];
  square: number[];
  dollar: number[];
  dollars: number[];
  signs: number[];
  lines: number[];
  braces: Map<number | undefined, number>;
  environments: Map<number, number>;
};
type Kept = { tokens: Token[]; env: any; inside?: Inside; marks?: Marks; textEnd?: number; found?: any };
export type BlockState = Omit<StateBlock, keyof Kept | "push"> & Kept & { push(...token: TokenHead): Token };
export type InlineState = Omit<StateInline, keyof Kept | "push"> & Kept & { push(...token: TokenHead): Token };
export type CoreState = Omit<StateCore, keyof Kept> & Kept;
export type TokenHead = [type: string, tag: string, nesting: -1 | 0 | 1];

/** A tag of a block in a text, see html_tags.js: where it stands, and whether it has a meaning. */
export type BlockTag = { at: number; end: number; name: string; source: string; closes: boolean; means: boolean };
/** A block of HTML that is open. */
export type Frame = { name: string; drawn: string; source: string; beside: boolean; at: number };
/** What markdown.js gives those that draw. */
export type Renderers = Pick<typeof import("./markdown.js"), "parse" | "render" | "directionSeen">;

declare global {
  interface Window {
    /** No conversation came before the page's script was there, see ui/page.py. */
    magistralUnopened?: boolean;
  }
  interface WindowEventMap {
    conversation: CustomEvent<{ id: string }>;
  }
}
