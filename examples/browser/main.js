// Classifies and embeds in the page. All files come from the folder that the page is in.
import { AutoModel, AutoTokenizer, env, pipeline } from "@huggingface/transformers";

env.allowLocalModels = true;
env.allowRemoteModels = false;
env.localModelPath = "models/";
env.useBrowserCache = false; // it would keep an old model when another takes its name
env.backends.onnx.wasm.wasmPaths = new URL("lib/", import.meta.url).href;

const INT8 = { device: "wasm", dtype: "q8" };
const SHOWN = 5; // labels
const find = (id) => document.getElementById(id);

// Promises, so that each model is loaded once.
let classifier, embedder;

/** The tokens of a text. Of a long one the library cuts off the last, [SEP], too, which Python keeps: it is put back. */
function encode(tokenizer, text) {
  const inputs = tokenizer(text, { truncation: true });
  inputs.input_ids.data[inputs.input_ids.size - 1] = BigInt(tokenizer.sep_token_id);
  return inputs;
}

async function loadClassifier() {
  const run = await pipeline("text-classification", "classifier", INT8);
  const { tokenizer } = run;
  run.tokenizer = (text) => encode(tokenizer, text);
  return run;
}

function loadEmbedder() {
  return Promise.all([AutoTokenizer.from_pretrained("embedder"), AutoModel.from_pretrained("embedder", INT8)]);
}

/** All labels of a text with their scores, the best first. */
export async function classify(text) {
  const run = await (classifier ??= loadClassifier());
  return run(text, { top_k: null });
}

/** The embedding of a text. The graph has pooled it, and made its length 1 if the embedder does. */
export async function embed(text) {
  const [tokenizer, model] = await (embedder ??= loadEmbedder());
  const { sentence_embedding } = await model(encode(tokenizer, text));
  return [...sentence_embedding.data];
}

function dot(one, other) {
  return one.reduce((sum, value, place) => sum + value * other[place], 0);
}

function cosine(one, other) {
  return dot(one, other) / Math.sqrt(dot(one, one) * dot(other, other));
}

function megabytes(name) {
  const { href } = new URL(`models/${name}/onnx/model_quantized.onnx`, import.meta.url);
  return `${(performance.getEntriesByName(href)[0].decodedBodySize / 1e6).toFixed(1)} MB`;
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function showScores() {
  await (classifier ??= loadClassifier()); // loading it is no part of an answer
  const start = performance.now();
  const scores = await classify(find("text").value);
  const end = performance.now();
  const rows = scores.slice(0, SHOWN).map(({ label, score }) => {
    const bar = element("meter", { value: score, ariaLabel: label });
    return element("li", {}, element("span", {}, label), bar, element("span", {}, `${(100 * score).toFixed(1)}%`));
  });
  find("scores").replaceChildren(element("ul", {}, ...rows));
  if (find("classifier-size").textContent === "–") {
    find("classifier-size").textContent = megabytes("classifier");
    find("first").textContent = `${(end / 1000).toFixed(1)} s`; // since the page was opened
  }
  find("last").textContent = `${(end - start).toFixed(0)} ms`;
}

async function showSimilarities() {
  const lines = find("lines").value.split("\n").filter((line) => line.trim());
  const embeddings = [];
  // One at a time: in int8 a text's numbers depend on the other texts of its batch.
  for (const line of lines) embeddings.push(await embed(line));
  const similarities = embeddings.map((one) => embeddings.map((other) => cosine(one, other)));
  const lowest = Math.min(...similarities.flat());
  const rows = similarities.map((row, index) => {
    const cells = row.map((similarity) => {
      const cell = element("td", {}, similarity.toFixed(2));
      const share = (60 * (similarity - lowest)) / (1 - lowest); // many embedders find all texts much alike
      cell.style.background = `color-mix(in srgb, var(--accent) ${share}%, transparent)`;
      return cell;
    });
    return element("tr", {}, element("th", { scope: "row" }, `${index + 1}  ${lines[index]}`), ...cells);
  });
  const numbers = lines.map((_, index) => element("th", { scope: "col" }, `${index + 1}`));
  find("similarities").replaceChildren(element("table", {}, element("tr", {}, element("td"), ...numbers), ...rows));
  find("embedder-size").textContent = megabytes("embedder");
}

/** Runs what fills an output, and shows there what went wrong. */
async function fill(output, show) {
  await show().catch((error) => find(output).replaceChildren(error.message));
}

function onSubmit(form, output, show) {
  find(form).addEventListener("submit", (event) => {
    event.preventDefault();
    fill(output, show);
  });
}

onSubmit("classify", "scores", showScores);
onSubmit("compare", "similarities", showSimilarities);
await fill("scores", showScores); // the embedder is loaded behind the first answer
await fill("similarities", showSimilarities);
