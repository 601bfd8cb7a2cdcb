from cohere.core.api_error import ApiError

two = {"model": model, "query": "Two?", "documents": ["Two.", "None."], "top_n": 2}
print("ranked", [result.index for result in client.rerank(**two, max_tokens_per_doc=512).results])
first = cohere.Client(base_url=client._client_wrapper.get_base_url(), api_key=os.environ["INDUCTA_API_KEY"])
print("ranked by the first version", [result.index for result in first.rerank(**two).results])
refused = (
    lambda: client.chat(model=model, messages=[{"role": "user", "content": "Say hello."}]),
    lambda: client.embed(model=model, texts=["one"], input_type="search_query", embedding_types=["float"]),
    lambda: client.rerank(**{**two, "model": "unknown"}),
    lambda: client.rerank(**two),
)
for ask in refused:
    try:
        ask()
    except ApiError as error:
        print("refused", error.status_code, error.body)
