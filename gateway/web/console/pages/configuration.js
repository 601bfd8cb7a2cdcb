// The configuration in force, and what another text would change.
import { html, useRef, useState } from "../vendor/htm-preact.js";
import { useData } from "../lib/api.js";
import { Badge, Card, Confirm, Copy, Empty, Loaded, Note, Page, Table, Time } from "../lib/ui.js";

export function Configuration({ api }) {
  const found = useData(() => api.get("/config"), "config");
  const [dialog, setDialog] = useState(false);
  const [done, setDone] = useState("");
  const hasFile = found.data && found.data.file;
  return html`<${Page} title="Configuration" actions=${hasFile && html`<button onClick=${() => setDialog(true)}>Reload the file</button>`}>
    ${done && html`<${Note} tone="good">${done}<//>`}
    <${Loaded} from=${found}>${(config) => html`
      <${Card} title="In force"><dl class="definition">
        <dt>Version</dt><dd class="mono">${config.hash || "–"}</dd>
        <dt>Loaded</dt><dd><${Time} at=${config.loaded_at} /></dd>
        <dt>File</dt><dd class="mono">${config.file || "none: the gateway was started without one"}</dd>
      </dl><//>
      <${Diff} api=${api} />
      <${Card} title="Text" tools=${config.text && html`<${Copy} text=${config.text} />`}>
        ${config.text
          ? html`<p class="small muted">Secrets and comments are left out. References such as <code>${"${NAME}"}</code> are as they are written.</p><pre class="code-block" tabindex="0" aria-label="Text of the configuration">${config.text}</pre>`
          : html`<${Empty} title="There is no file">The demo and <code>--upstream</code> need none. Write one with <code>gateway init</code>.<//>`}
      <//>`}<//>
    ${dialog && html`<${Confirm} title="Reload the file?" verb="Reload" onClose=${() => setDialog(false)}
      act=${() => api.ask("POST", "/reload")} onDone=${() => { setDialog(false); setDone("The file was reloaded. What changed is in the audit."); found.reload(); }}>
      <p>The gateway reads <span class="mono">${found.data.file}</span> again. A file with errors is refused as a whole, and this one stays in force.</p><//>`}
  <//>`;
}

const TONES = { added: "good", removed: "bad", changed: "", renamed: "warn" };

function Diff({ api }) {
  const [state, setState] = useState({ busy: false });
  const input = useRef(null);
  async function ask(event) {
    event.preventDefault();
    setState({ busy: true });
    try {
      setState({ busy: false, result: await api.ask("POST", "/config/diff", { body: { text: input.current.value } }) });
    } catch (error) {
      setState({ busy: false, error: error.message });
    }
  }
  const { result } = state;
  return html`<${Card} title="What would another file change?">
    <form class="stack" onSubmit=${ask}>
      <label class="field"><span class="hidden-label">Text of the other file</span>
        <textarea ref=${input} rows="7" required spellcheck="false" placeholder="Paste a whole configuration: it is checked and compared, and nothing is changed."></textarea></label>
      <div class="row"><button type="submit" disabled=${state.busy}>${state.busy ? "Comparing …" : "Check and compare"}</button>
        <span class="small muted">Variables and files of this machine are not read for it.</span></div>
    </form>
    ${state.error && html`<${Note} tone="bad">${state.error}<//>`}
    ${result && html`<div class="stack result" aria-live="polite">
      ${result.valid
        ? html`<${Note} tone="good">It is valid, as far as it can be checked without the values of its references.<//>`
        : html`<${Note} tone="bad">${`It would be refused:\n${result.problems.map((each) => `${each.line ? `line ${each.line}: ` : ""}${each.path ? `${each.path}: ` : ""}${each.message}`).join("\n")}`}<//>`}
      <${Changes} changes=${result.changes} />
    </div>`}
  <//>`;
}

function Changes({ changes }) {
  return html`<${Table} label="Changes" rows=${changes} rowKey=${(row) => `${row.path} ${row.change}`} empty=${html`<${Empty} title="It changes nothing" />`} columns=${[
    { name: "path", label: "Setting", show: (row) => html`<span class="mono">${row.path}</span>` },
    { name: "change", label: "Change", show: (row) => html`<${Badge} tone=${TONES[row.change]}>${row.change}<//>` },
    { name: "before", label: "Before", value: (row) => written(row.before), show: (row) => html`<${Written} value=${row.before} />` },
    { name: "after", label: "After", value: (row) => written(row.after), show: (row) => html`<${Written} value=${row.after} />` },
    { name: "note", label: "Effect", show: (row) => (row.note ? html`<span class="warn">${row.note}</span>` : html`<span class="muted">–</span>`) },
  ]} />`;
}

// As YAML in one line, near enough.
function written(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return `[${value.map(written).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${name}: ${written(each)}`).join(", ")}}`;
  return String(value);
}

function Written({ value }) {
  const text = written(value);
  if (!text) return html`<span class="muted">–</span>`;
  if (text.length < 120) return html`<span class="mono small">${text}</span>`;
  return html`<details><summary>${text.slice(0, 60)} …</summary><span class="mono small">${text}</span></details>`;
}
